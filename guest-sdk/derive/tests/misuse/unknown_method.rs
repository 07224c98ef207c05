//! A method is misspelt.

#[operator]
impl Operator for Count {
    fn declare(d: &mut Declare) -> Self {}
    fn process(&mut self, line: &str, cx: &mut Ctx) -> Result<()> {}
    fn on_finish(&mut self, cx: &mut Ctx) -> Result<()> {}
}

//~ 7:8 `on_finish` is no method of `Operator`; these are: `declare`, `open`, `restored`, `process`, `prefetch`, `on_timer`, `finish`, `finish_all`, `on_watermark`, `snapshot_private`, `restore_private`
