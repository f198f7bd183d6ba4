//! Charts as SVG, each with axes, units and a text that says the same.

use std::fmt::Write;

use super::facts::{Hour, Minute};
use super::html::{escaped, Html};

/// Of the drawing; the page scales it.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 180.0;
/// Around the plot: left for numbers, below for times.
const LEFT: f64 = 60.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 24.0;
/// Minutes between two labels of the time axis.
const MINUTES_A_LABEL: usize = 10;
/// An hour with more failures than this part of its calls is shown as bad.
const BAD_PART: f64 = 0.5;

const STRIP_CELL: f64 = 6.0;
const STRIP_HEIGHT: f64 = 16.0;

/// Calls a minute, delivered and failed stacked.
pub fn calls(minutes: &[Minute]) -> Html {
    let most = minutes.iter().map(|m| m.delivered + m.failed).max();
    let top = round_up(most.unwrap_or(0) as f64);
    let delivered: i64 = minutes.iter().map(|m| m.delivered).sum();
    let failed: i64 = minutes.iter().map(|m| m.failed).sum();
    let title = format!(
        "Calls a minute in the last hour: {delivered} delivered, {failed} failed, at most {} in a minute",
        most.unwrap_or(0)
    );
    let mut plot = Plot::begin(&title, "calls/min", top, minutes);
    let step = (WIDTH - LEFT - RIGHT) / minutes.len().max(1) as f64;
    for (place, minute) in minutes.iter().enumerate() {
        let x = LEFT + step * place as f64;
        let bars = [
            (minute.delivered, 0, "good"),
            (minute.failed, minute.delivered, "bad"),
        ];
        for (count, below, class) in bars.into_iter().filter(|(count, ..)| *count > 0) {
            let (y, bottom) = (plot.y((below + count) as f64), plot.y(below as f64));
            let _ = write!(
                plot.svg,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                step * 0.8,
                (bottom - y).max(1.0)
            );
        }
    }
    plot.end()
}

/// How long calls took: the median and what 95 % did not exceed.
pub fn durations(minutes: &[Minute]) -> Html {
    let most = minutes.iter().filter_map(|m| m.p95_ms).fold(0.0, f64::max);
    let title = match most > 0.0 {
        true => {
            format!("Duration of calls in the last hour, in milliseconds: p95 at most {most:.0}")
        }
        false => "Duration of calls in the last hour: no calls".to_owned(),
    };
    let mut plot = Plot::begin(&title, "ms", round_up(most), minutes);
    plot.line("p50", minutes, |minute| minute.p50_ms);
    plot.line("p95", minutes, |minute| minute.p95_ms);
    plot.end()
}

/// The last day of a URL, an hour a cell.
pub fn strip(hours: &[Hour]) -> Html {
    let calls: i64 = hours.iter().map(|hour| hour.calls).sum();
    let failures: i64 = hours.iter().map(|hour| hour.failures).sum();
    let width = STRIP_CELL * hours.len() as f64;
    let mut svg = format!(
        "<svg class=\"strip\" role=\"img\" width=\"{width:.0}\" height=\"{STRIP_HEIGHT:.0}\" \
         viewBox=\"0 0 {width:.0} {STRIP_HEIGHT:.0}\" aria-label=\"last 24 hours: {calls} calls, {failures} failed\">"
    );
    for (place, hour) in hours.iter().enumerate() {
        let class = match hour {
            Hour { calls: 0, .. } => "none",
            Hour { failures: 0, .. } => "good",
            hour if hour.failures as f64 > hour.calls as f64 * BAD_PART => "bad",
            _ => "warn",
        };
        let _ = write!(
            svg,
            "<rect class=\"{class}\" x=\"{:.0}\" y=\"0\" width=\"{:.0}\" height=\"{STRIP_HEIGHT:.0}\"/>",
            STRIP_CELL * place as f64,
            STRIP_CELL - 1.0
        );
    }
    svg.push_str("</svg>");
    Html::drawn(svg)
}

struct Plot {
    svg: String,
    top: f64,
}

impl Plot {
    fn begin(title: &str, unit: &str, top: f64, minutes: &[Minute]) -> Self {
        let (title, unit) = (escaped(title), escaped(unit));
        let svg = format!(
            "<svg class=\"chart\" role=\"img\" viewBox=\"0 0 {WIDTH:.0} {HEIGHT:.0}\" aria-label=\"{title}\">\
             <title>{title}</title>"
        );
        let mut plot = Self { svg, top };
        for part in [0.0, 0.5, 1.0] {
            let (value, y) = (top * part, plot.y(top * part));
            let _ = write!(
                plot.svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"axis\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
                short(value)
            );
        }
        let step = (WIDTH - LEFT - RIGHT) / minutes.len().max(1) as f64;
        for (place, minute) in minutes.iter().enumerate().step_by(MINUTES_A_LABEL) {
            let _ = write!(
                plot.svg,
                "<text class=\"axis{}\" x=\"{:.1}\" y=\"{:.0}\">{}</text>",
                // On a phone every other one is left out.
                if (place / MINUTES_A_LABEL).is_multiple_of(2) {
                    ""
                } else {
                    " minor"
                },
                LEFT + step * place as f64,
                HEIGHT - 6.0,
                escaped(&minute.label)
            );
        }
        let _ = write!(
            plot.svg,
            "<text class=\"axis\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{unit}</text>",
            WIDTH - RIGHT,
            HEIGHT - 6.0
        );
        plot
    }

    fn y(&self, value: f64) -> f64 {
        let part = if self.top > 0.0 {
            value / self.top
        } else {
            0.0
        };
        HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
    }

    /// Broken where there were no calls; a minute between two without is a dot.
    fn line(&mut self, class: &str, minutes: &[Minute], of: impl Fn(&Minute) -> Option<f64>) {
        let step = (WIDTH - LEFT - RIGHT) / minutes.len().max(1) as f64;
        let mut path = String::new();
        let mut is_drawing = false;
        for (place, minute) in minutes.iter().enumerate() {
            let Some(value) = of(minute) else {
                is_drawing = false;
                continue;
            };
            let (x, y) = (LEFT + step * (place as f64 + 0.4), self.y(value));
            let move_or_line = if is_drawing { 'L' } else { 'M' };
            let _ = write!(path, "{move_or_line}{x:.1} {y:.1}");
            if !is_drawing {
                path.push_str("h0.01");
            }
            is_drawing = true;
        }
        let _ = write!(self.svg, "<path class=\"{class}\" d=\"{path}\"/>");
    }

    fn end(mut self) -> Html {
        self.svg.push_str("</svg>");
        Html::drawn(self.svg)
    }
}

/// To 1, 2 or 5 times a power of ten, so that the axis has round numbers.
fn round_up(value: f64) -> f64 {
    if value <= 1.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let rounded = [1.0, 2.0, 5.0, 10.0].map(|times| times * power);
    rounded
        .into_iter()
        .find(|bound| *bound >= value)
        .unwrap_or(value)
}

fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.1}M", v / 1e6),
        v if v >= 1e4 => format!("{:.0}k", v / 1e3),
        v if v.fract() > 0.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number() {
        for (value, top) in [
            (0.0, 1.0),
            (1.0, 1.0),
            (3.0, 5.0),
            (11.0, 20.0),
            (501.0, 1000.0),
        ] {
            assert_eq!(round_up(value), top, "{value}");
        }
    }

    #[test]
    fn bars_are_stacked_and_counted() {
        let minutes = [Minute {
            label: "14:03".to_owned(),
            delivered: 3,
            failed: 1,
            ..Minute::default()
        }];
        let svg = calls(&minutes).finish();
        assert_eq!(svg.matches("<rect class=\"good\"").count(), 1, "{svg}");
        assert_eq!(svg.matches("<rect class=\"bad\"").count(), 1, "{svg}");
        assert!(
            svg.contains("3 delivered, 1 failed, at most 4 in a minute"),
            "{svg}"
        );
    }

    #[test]
    fn a_line_is_broken_where_nothing_was_called() {
        let minute = |p95_ms| Minute {
            p95_ms,
            ..Minute::default()
        };
        let svg = durations(&[minute(Some(3.0)), minute(None), minute(Some(4.0))]).finish();
        let (_, p95) = svg.split_once("class=\"p95\"").unwrap();
        assert_eq!(p95.matches('M').count(), 2, "{svg}");
    }
}
