use phasewise::{Change, Context, Migration, Migrations, Phase, Result, Rollback, Step, Touches, Window, migrations};

#[derive(Clone, Copy)]
struct Before;

#[derive(Clone, Copy)]
struct After;

#[derive(Clone, Copy)]
struct Cut;

impl Phase for Before {
    const NAME: &'static str = "Before";
    const WINDOW: Window = Window::new(0, 1);

    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }

    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }
}

impl Phase for After {
    const NAME: &'static str = "After";
    const WINDOW: Window = Window::new(1, 1);

    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }

    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }
}

impl Change for Cut {
    type Phases = (Before, After);

    fn phases(&self) -> Self::Phases {
        (Before, After)
    }

    fn definition(&self) -> String {
        "cut".to_owned()
    }

    fn touches(&self) -> Touches {
        Touches::everything()
    }
}

static MIGRATIONS: Migrations = migrations![Migration::new("a", Cut).not_deployed()];

fn main() {
    let _ = MIGRATIONS;
}
