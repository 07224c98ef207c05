//! There is a type of keys, and `process` has none.

#[operator]
impl Operator for Count {
    type Key<'a> = &'a str;
    fn declare(d: &mut Declare) -> Self {}
    fn process(&mut self, line: &str, cx: &mut Ctx) -> Result<()> {}
}

//~ 4:19 there is a type `Key`, and `process` takes no key: take it, or leave the type away
