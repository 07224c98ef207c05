//! Private state is saved and not restored.

#[operator]
impl Operator for Count {
    fn declare(d: &mut Declare) -> Self {}
    fn process(&mut self, line: &str, cx: &mut Ctx) -> Result<()> {}
    fn snapshot_private(&mut self) -> Result<Vec<u8>> {}
}

//~ 7:8 `snapshot_private` needs `restore_private`: one saves what the other takes back
