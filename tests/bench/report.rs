//! The table of results, for people and as JSON.

use std::path::PathBuf;

use serde_json::json;

use super::support::{Cluster, Receiver};

/// Measures one target on a fresh cluster.
pub type Measure = fn(&Cluster, &Receiver, &mut Report);

/// One line: ours, what it is compared with, and the target.
pub struct Line {
    pub name: &'static str,
    pub what: String,
    pub ours: f64,
    pub compared_with: f64,
    pub unit: &'static str,
    pub ratio: f64,
    /// `None`: for information.
    pub target: Option<Target>,
}

#[derive(Clone, Copy)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// On `ours` itself.
    OursAtMost(f64),
    OursAtLeast(f64),
}

impl Line {
    /// Ours against a limit of its own, which also stands where a comparison would.
    pub fn limited(
        name: &'static str,
        what: String,
        ours: f64,
        unit: &'static str,
        target: Target,
    ) -> Self {
        let (Target::AtLeast(limit)
        | Target::AtMost(limit)
        | Target::OursAtMost(limit)
        | Target::OursAtLeast(limit)) = target;
        Self {
            name,
            what,
            ours,
            compared_with: limit,
            unit,
            ratio: ours / limit,
            target: Some(target),
        }
    }

    fn met(&self) -> Option<bool> {
        self.target.map(|target| match target {
            Target::AtLeast(limit) => self.ratio >= limit,
            Target::AtMost(limit) => self.ratio <= limit,
            Target::OursAtMost(limit) => self.ours <= limit,
            Target::OursAtLeast(limit) => self.ours >= limit,
        })
    }

    fn target_text(&self) -> String {
        match self.target {
            None => "-".to_owned(),
            Some(Target::AtLeast(limit)) => format!("ratio >= {limit}"),
            Some(Target::AtMost(limit)) => format!("ratio <= {limit}"),
            Some(Target::OursAtMost(limit)) => format!("<= {limit} {}", self.unit),
            Some(Target::OursAtLeast(limit)) => format!(">= {limit} {}", self.unit),
        }
    }
}

#[derive(Default)]
pub struct Report {
    lines: Vec<Line>,
}

impl Report {
    pub fn add(&mut self, line: Line) {
        self.lines.push(line);
    }

    pub fn print(&self) {
        println!(
            "{:<3} {:<58} {:>12} {:>14} {:<11} {:>7}  {:<16} met",
            "", "what", "ours", "compared with", "unit", "ratio", "target"
        );
        for line in &self.lines {
            let met = line.met().map_or("-", |met| if met { "yes" } else { "no" });
            println!(
                "{:<3} {:<58} {:>12.3} {:>14.3} {:<11} {:>7.3}  {:<16} {met}",
                line.name,
                line.what,
                line.ours,
                line.compared_with,
                line.unit,
                line.ratio,
                line.target_text(),
            );
        }
        match self.write() {
            Ok(path) => println!("written to {}", path.display()),
            Err(error) => eprintln!("could not write the results: {error}"),
        }
    }

    fn write(&self) -> std::io::Result<PathBuf> {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bench.json");
        let lines: Vec<_> = self
            .lines
            .iter()
            .map(|line| {
                json!({
                    "name": line.name, "what": line.what, "ours": line.ours,
                    "compared_with": line.compared_with, "unit": line.unit,
                    "ratio": line.ratio, "target": line.target_text(), "met": line.met(),
                })
            })
            .collect();
        std::fs::write(&path, serde_json::to_string_pretty(&lines)?)?;
        Ok(path)
    }
}

/// The middle of some measurements.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The value that this share of the measurements stays below.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}
