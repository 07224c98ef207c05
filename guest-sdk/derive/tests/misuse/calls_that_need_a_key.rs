//! Methods have a key, and `process` has none.

#[operator]
impl Operator for Count {
    fn declare(d: &mut Declare) -> Self {}
    fn process(&mut self, line: &str, cx: &mut Ctx) -> Result<()> {}
    fn finish(&mut self, key: (), cx: &mut Ctx) -> Result<()> {}
    fn on_timer(&mut self, key: (), timer: Timer, at: i64, cx: &mut Ctx) -> Result<()> {}
}

//~ 7:8 `finish` is called for each key: `finish_all` is called once; `process` takes no key
//~ 8:8 `on_timer` is called for a timer's key, and timers are kept by key; `process` takes no key
