//! `process` has no call.

#[operator]
impl Operator for Count {
    fn declare(d: &mut Declare) -> Self {}
    fn process(&mut self, line: &str) -> Result<()> {}
}

//~ 6:5 these are not the parameters of `process`: it is `fn process(&mut self, key: KEY, value: VALUE, cx: &mut Ctx) -> Result<()>`, without `key` for an operator that reads none
