//! The picture of a report: one panel for each of a few questions, one group of bars for each shape, one bar for each
//! program, on a logarithmic axis. SVG, written by hand: it needs rectangles and words.

use std::fmt::Write as _;

use crate::report::Report;

/// What a panel shows: the rows of its shapes, and what to write above it.
struct Panel {
    title: &'static str,
    /// A row's name is `agent, SHAPE: ` and this.
    what: &'static str,
}

const PANELS: [Panel; 4] = [
    Panel {
        title: "From start to all rules, ms",
        what: "from start to all rules",
    },
    Panel {
        title: "One endpoint changes, write to commit, p50, ms",
        what: "one endpoint changes, write to commit, p50",
    },
    Panel {
        title: "One endpoint changes, write to commit, p99, ms",
        what: "one endpoint changes, write to commit, p99",
    },
    Panel {
        title: "Resident memory, MB",
        what: "resident memory",
    },
];

/// Ours first; then the peers in the order of their first row.
const COLORS: [&str; 4] = ["#0b6e4f", "#c8553d", "#e0a458", "#6c757d"];
const WIDTH: f64 = 860.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 80.0;
const BAR: f64 = 15.0;
const GAP: f64 = 8.0;
const HEAD: f64 = 52.0;

/// One bar.
#[derive(Clone, Debug, PartialEq)]
struct Bar {
    who: usize,
    value: f64,
}

/// Draws a report as an SVG document.
pub fn svg(report: &Report) -> String {
    let who = contenders(report);
    let mut body = String::new();
    let mut top = 24.0;
    for (index, name) in who.iter().enumerate() {
        let x = LEFT + 230.0 * index as f64;
        let _ = writeln!(
            body,
            r#"<rect x="{x}" y="12" width="12" height="12" fill="{}"/>"#,
            color(index)
        );
        text(&mut body, x + 18.0, 22.0, "start", name);
    }
    for panel in &PANELS {
        top = draw(&mut body, report, panel, &who, top);
    }
    let height = top + 16.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

fn contenders(report: &Report) -> Vec<String> {
    let mut who = vec!["Portolan, nftables".to_owned()];
    for (name, _) in report.rows.iter().flat_map(|row| &row.peers) {
        if !who.contains(name) {
            who.push(name.clone());
        }
    }
    who
}

/// The groups of a panel: a shape, and who needed how much for it.
fn groups(report: &Report, panel: &Panel, who: &[String]) -> Vec<(String, Vec<Bar>)> {
    let mut groups = Vec::new();
    for row in &report.rows {
        let shape = row
            .name
            .strip_prefix("agent, ")
            .and_then(|rest| rest.split_once(": "));
        let Some((shape, _)) = shape.filter(|(_, what)| *what == panel.what) else {
            continue;
        };
        let ours = row.value.map(|value| Bar { who: 0, value });
        let theirs = row.peers.iter().filter_map(|(name, value)| {
            let who = who.iter().position(|other| other == name)?;
            Some(Bar { who, value: *value })
        });
        groups.push((shape.to_owned(), ours.into_iter().chain(theirs).collect()));
    }
    groups
}

/// Draws one panel below `top`; returns where it ends.
fn draw(body: &mut String, report: &Report, panel: &Panel, who: &[String], top: f64) -> f64 {
    let groups = groups(report, panel, who);
    let all = groups
        .iter()
        .flat_map(|(_, bars)| bars)
        .map(|bar| bar.value);
    let Some(axis) = Axis::over(all) else {
        return top;
    };
    let first = top + HEAD;
    let bars: usize = groups.iter().map(|(_, bars)| bars.len()).sum();
    let bottom = first + bars as f64 * BAR + groups.len() as f64 * GAP;
    let _ = writeln!(
        body,
        r#"<text x="{LEFT}" y="{}" font-weight="bold">{}</text>"#,
        top + 28.0,
        escaped(panel.title)
    );
    for power in axis.low..=axis.high {
        let x = axis.x(10f64.powi(power));
        let _ = writeln!(
            body,
            r##"<line x1="{x:.1}" y1="{first}" x2="{x:.1}" y2="{bottom}" stroke="#dddddd"/>"##
        );
        text(body, x, first - 6.0, "middle", &number(10f64.powi(power)));
    }
    let mut y = first;
    for (shape, bars) in &groups {
        text(
            body,
            LEFT - 8.0,
            y + BAR * bars.len() as f64 / 2.0 + 4.0,
            "end",
            shape,
        );
        for bar in bars {
            let width = axis.x(bar.value) - LEFT;
            let _ = writeln!(
                body,
                r#"<rect x="{LEFT}" y="{}" width="{width:.1}" height="{}" fill="{}"/>"#,
                y + 1.0,
                BAR - 2.0,
                color(bar.who)
            );
            text(
                body,
                LEFT + width + 5.0,
                y + BAR - 3.5,
                "start",
                &number(bar.value),
            );
            y += BAR;
        }
        y += GAP;
    }
    bottom
}

/// A logarithmic axis from a power of ten to a power of ten.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    low: i32,
    high: i32,
}

impl Axis {
    /// An axis on which all values are; `None` without any.
    fn over(values: impl Iterator<Item = f64>) -> Option<Axis> {
        let logarithms: Vec<f64> = values
            .filter(|value| *value > 0.0)
            .map(f64::log10)
            .collect();
        let least = logarithms.iter().copied().min_by(f64::total_cmp)?;
        let most = logarithms.iter().copied().max_by(f64::total_cmp)?;
        // The least value has a bar that can be seen.
        let low = (least - 0.2).floor() as i32;
        Some(Axis {
            low,
            high: (most.ceil() as i32).max(low + 1),
        })
    }

    fn x(self, value: f64) -> f64 {
        let share = (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }
}

fn color(index: usize) -> &'static str {
    COLORS[index % COLORS.len()]
}

fn text(body: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ = writeln!(
        body,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#,
        escaped(words)
    );
}

/// A number with three significant digits.
pub fn number(value: f64) -> String {
    match value {
        100.0.. => grouped(value.round() as u64),
        10.0.. => trimmed(format!("{value:.1}")),
        1.0.. => trimmed(format!("{value:.2}")),
        _ => trimmed(format!("{value:.3}")),
    }
}

fn trimmed(text: String) -> String {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// Thousands apart, as in 12 345.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

fn escaped(words: &str) -> String {
    words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        for (who, value) in [(None, 4.0), (Some("kube-proxy <1> nftables"), 3_520.0)] {
            report.add(
                who,
                "agent, 10000 x 2: one endpoint changes, write to commit, p50",
                value,
                "ms",
            );
            report.add(who, "agent, 10000 x 2: resident memory", value, "MB");
        }
        report
    }

    #[test]
    fn every_value_is_a_bar_and_every_word_is_escaped() {
        let picture = svg(&report());
        // A background, two marks of the legend, and two panels of two bars.
        assert_eq!(picture.matches("<rect").count(), 1 + 2 + 4);
        assert!(picture.contains("kube-proxy &lt;1&gt; nftables"));
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    }

    #[test]
    fn without_values_there_are_no_panels() {
        assert_eq!(svg(&Report::default()).matches("<rect").count(), 2);
    }

    #[test]
    fn the_axis_holds_all_values() {
        let axis = Axis::over([4.0, 3_520.0].into_iter()).unwrap();
        assert_eq!(axis, Axis { low: 0, high: 4 });
        assert!(axis.x(4.0) > LEFT && axis.x(3_520.0) < WIDTH - RIGHT);
        assert!(axis.x(4.0) < axis.x(5.0));
        assert_eq!(Axis::over([0.0].into_iter()), None);
    }

    #[test]
    fn numbers_have_three_digits() {
        for (value, words) in [
            (0.1234, "0.123"),
            (1.0, "1"),
            (12.34, "12.3"),
            (1234.5, "1\u{202f}235"),
            (123_456.0, "123\u{202f}456"),
        ] {
            assert_eq!(number(value), words);
        }
    }
}
