use phasewise::{Context, Phase, Result, Step, Window};

#[derive(Clone, Copy)]
struct Partition;

impl Phase for Partition {
    const NAME: &'static str = "Partition";
    const WINDOW: Window = Window::new(0, 0);

    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }
}

fn main() {}
