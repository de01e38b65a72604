//! Samples of one figure, the reference they are held against, and the report.

use anyhow::{Context, Result};
use serde::Serialize;

/// Least, middle and greatest of some samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one; the mean of the two in the middle of an even count.
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// How many there were.
    pub samples: usize,
}

impl Spread {
    /// The spread of `samples`.
    ///
    /// # Errors
    /// There are none.
    pub fn of(samples: &[f64]) -> Result<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (sorted.first(), sorted.last());
        let (min, max) = first.copied().zip(last.copied()).context("a figure without samples")?;
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Ok(Self { median, min, max, samples: sorted.len() })
    }
}

/// What a figure must not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promise {
    /// The median, in the figure's own unit.
    AtMost(f64),
    /// The median divided by the reference's.
    RatioAtMost(f64),
}

#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub name: String,
    /// `ms`, `MiB`, `% of a core`, ...
    pub unit: &'static str,
    pub measured: Spread,
    /// What was done as the reference, and its values.
    pub reference: Option<(&'static str, Spread)>,
    /// What SPECIFICATION.md promises.
    pub promise: Option<Promise>,
}

impl Figure {
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        self.reference.as_ref().map(|(_, reference)| self.measured.median / reference.median)
    }

    /// Whether the promise is kept; `None` without one.
    #[must_use]
    pub fn kept(&self) -> Option<bool> {
        Some(match self.promise? {
            Promise::AtMost(limit) => self.measured.median <= limit,
            Promise::RatioAtMost(limit) => self.ratio().is_some_and(|ratio| ratio <= limit),
        })
    }
}

/// All figures, in the order they were taken.
#[derive(Debug, Default)]
pub struct Report(Vec<Figure>);

impl Report {
    /// Adds a figure without a reference.
    ///
    /// # Errors
    /// There are no samples.
    pub fn plain(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        samples: &[f64],
        promise: Option<Promise>,
    ) -> Result<()> {
        self.add(Figure {
            name: name.into(),
            unit,
            measured: Spread::of(samples)?,
            reference: None,
            promise,
        });
        Ok(())
    }

    /// Adds a figure with its reference.
    ///
    /// # Errors
    /// There are no samples of either.
    pub fn against(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        samples: &[f64],
        reference: (&'static str, &[f64]),
        promise: Option<Promise>,
    ) -> Result<()> {
        let reference = Some((reference.0, Spread::of(reference.1)?));
        self.add(Figure { name: name.into(), unit, measured: Spread::of(samples)?, reference, promise });
        Ok(())
    }

    fn add(&mut self, figure: Figure) {
        eprintln!("{}", line(&figure));
        self.0.push(figure);
    }

    /// Prints everything.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn print(&self, json: bool) -> Result<()> {
        if json {
            let all: Vec<_> = self
                .0
                .iter()
                .map(|figure| {
                    let mut value = serde_json::to_value(figure)?;
                    value["ratio"] = serde_json::to_value(figure.ratio())?;
                    value["kept"] = serde_json::to_value(figure.kept())?;
                    anyhow::Ok(value)
                })
                .collect::<Result<_>>()?;
            println!("{}", serde_json::to_string_pretty(&all)?);
        } else {
            for figure in &self.0 {
                println!("{}", line(figure));
            }
            let missed = self.0.iter().filter(|f| f.kept() == Some(false)).count();
            println!("\n{} figures, {missed} above the promise", self.0.len());
        }
        Ok(())
    }
}

fn line(figure: &Figure) -> String {
    let spread =
        |s: &Spread| format!("{} ({}-{}, n={})", short(s.median), short(s.min), short(s.max), s.samples);
    let mut text = format!("{:<46} {} {}", figure.name, spread(&figure.measured), figure.unit);
    if let (Some((what, reference)), Some(ratio)) = (&figure.reference, figure.ratio()) {
        text.push_str(&format!("; {what} {}; ratio {ratio:.2}", spread(reference)));
    }
    match figure.promise {
        Some(Promise::AtMost(limit)) => text.push_str(&format!("; promised {}", short(limit))),
        Some(Promise::RatioAtMost(limit)) => text.push_str(&format!("; promised ratio {limit}")),
        None => {}
    }
    if figure.kept() == Some(false) {
        text.push_str("; NOT KEPT");
    }
    text
}

/// Three significant digits are what these measurements are good for.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_samples() {
        let spread = |samples: &[f64]| Spread::of(samples).map(|s| (s.median, s.min, s.max)).ok();
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), Some((2.5, 1.0, 4.0)));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn promises_are_held_against_the_median_or_the_ratio() {
        let spread = |samples: &[f64]| Spread::of(samples).unwrap();
        let mut figure = Figure {
            name: "pod start".into(),
            unit: "ms",
            measured: spread(&[10.0, 12.0, 50.0]),
            reference: Some(("floor", spread(&[10.0]))),
            promise: Some(Promise::RatioAtMost(1.2)),
        };
        assert_eq!(figure.kept(), Some(true));
        figure.promise = Some(Promise::AtMost(11.0));
        assert_eq!(figure.kept(), Some(false));
        assert!(line(&figure).ends_with("ratio 1.20; promised 11.0; NOT KEPT"), "{}", line(&figure));
        figure.promise = None;
        assert_eq!(figure.kept(), None);
    }
}
