//! The attribute stands on the implementation of another trait.

#[operator]
impl Default for Count {
    fn declare(d: &mut Declare) -> Self {}
    fn process(&mut self, line: &str, cx: &mut Ctx) -> Result<()> {}
}

//~ 4:18 `#[operator]` belongs on an `impl Operator for …`
