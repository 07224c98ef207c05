//! The methods that must be there are not.

#[operator]
impl Operator for Count {
    fn finish(&mut self, word: &str, cx: &mut Ctx) -> Result<()> {}
}

//~ 4:19 `declare` is missing: `fn declare(d: &mut Declare) -> Self` makes the operator with its handles
//~ 4:19 `process` is missing: it is `fn process(&mut self, key: KEY, value: VALUE, cx: &mut Ctx) -> Result<()>`, without `key` for an operator that reads none
