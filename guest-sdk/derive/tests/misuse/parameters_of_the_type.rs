//! The implementation has type parameters.

#[operator]
impl<T> Operator for Count<T> {
    fn declare(d: &mut Declare) -> Self {}
    fn process(&mut self, line: &str, cx: &mut Ctx) -> Result<()> {}
}

//~ 4:5 an operator has no parameters: its component exports one type
