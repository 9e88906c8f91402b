//! Paired runs that alternate, and the median of their ratios.

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Bench {
    names: Vec<String>,
    listing: bool,
    /// Pairs a figure, after one that warms both sides up.
    pub(crate) pairs: usize,
    /// Rows of the tables.
    pub(crate) rows: i64,
    pub(crate) quick: bool,
}

impl Bench {
    pub(crate) fn from_arguments() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let quick = arguments.iter().any(|argument| argument == "--quick");
        Self {
            names: arguments.iter().filter(|argument| !argument.starts_with("--")).cloned().collect(),
            listing: arguments.iter().any(|argument| argument == "--list" || argument == "--test"),
            pairs: if quick { 1 } else { 3 },
            rows: if quick { 100_000 } else { 1_000_000 },
            quick,
        }
    }

    /// Whether `cargo` only wants to know what there is.
    pub(crate) fn is_listing(&self) -> bool {
        self.listing
    }

    /// Whether a figure was asked for: those named, else all.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|part| name.contains(part.as_str()))
    }

    /// Prints the median of `over` divided by `under`, run in turn, whoever is first changing from pair to pair.
    pub(crate) async fn ratio<E>(
        &self,
        name: &str,
        mut over: impl AsyncFnMut() -> Result<f64, E>,
        mut under: impl AsyncFnMut() -> Result<f64, E>,
    ) -> Result<(), E> {
        let mut ratios = Vec::new();
        for pair in 0..=self.pairs {
            let (above, below) = if pair % 2 == 0 {
                let above = over().await?;
                (above, under().await?)
            } else {
                let below = under().await?;
                (over().await?, below)
            };
            if pair > 0 || self.quick {
                eprintln!("  {name}: {above:.3} / {below:.3} = {:.3}", above / below);
                ratios.push(above / below);
            }
        }
        println!("RATIO {name} {:.2}", median(&mut ratios));
        Ok(())
    }
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
