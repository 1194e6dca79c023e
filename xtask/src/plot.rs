//! Lines as an SVG: panels under each other, with a scale and a legend each. No more than the soaks and simulators need.

use std::fmt::Write as _;

/// What the lines go over.
#[derive(Clone, Copy)]
pub struct Across {
    /// Where it begins.
    pub from: f64,
    /// What stands behind each number.
    pub unit: &'static str,
    /// Decimals of those.
    pub decimals: usize,
}

/// Minutes from the beginning.
pub const MINUTES: Across = Across { from: 0.0, unit: " min", decimals: 1 };

/// One line.
pub struct Series {
    /// What it is.
    pub name: &'static str,
    /// Where, and values, in order.
    pub points: Vec<(f64, f64)>,
}

/// Lines on one scale.
pub struct Panel {
    /// What they are, and in what.
    pub title: &'static str,
    /// The lines.
    pub series: Vec<Series>,
}

const WIDTH: f64 = 900.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const HEIGHT: f64 = 120.0;
const GAP: f64 = 46.0;
/// Told apart also by those who see no red.
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

/// The whole picture.
pub fn svg(title: &str, across: Across, panels: &[Panel]) -> String {
    let most_across = most(panels.iter().flat_map(|panel| &panel.series), |point| point.0);
    #[expect(clippy::cast_precision_loss, reason = "a few panels")]
    let height = TOP + panels.len() as f64 * (HEIGHT + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"18\" font-size=\"13\">{}</text>\n",
        escaped(title)
    );
    let mut top = TOP;
    for panel in panels {
        draw(&mut svg, panel, top, (across, most_across));
        top += HEIGHT + GAP;
    }
    svg.push_str("</svg>\n");
    svg
}

fn most<'a>(series: impl Iterator<Item = &'a Series>, of: fn(&(f64, f64)) -> f64) -> f64 {
    series.flat_map(|series| &series.points).map(of).fold(0.0, f64::max).max(f64::MIN_POSITIVE)
}

/// One panel, its upper edge at `top`.
fn draw(svg: &mut String, panel: &Panel, top: f64, (across, most_across): (Across, f64)) {
    let scale = nice(most(panel.series.iter(), |point| point.1));
    let (right, bottom) = (WIDTH - RIGHT, top + HEIGHT);
    let length = most_across - across.from;
    let x = |at: f64| LEFT + (at - across.from) / length * (right - LEFT);
    let y = |value: f64| bottom - value / scale * HEIGHT;
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{:.1}\">{}</text>", top - 6.0, escaped(panel.title));
    for part in [0.0, 0.5, 1.0] {
        let (value, at) = (scale * part, y(scale * part));
        let _ = writeln!(svg, "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>");
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>", LEFT - 6.0, at + 4.0);
    }
    for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let at = across.from + length * part;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#777\">{at:.*}{}</text>",
            x(at),
            bottom + 14.0,
            across.decimals,
            across.unit
        );
    }
    let mut legend = right;
    for (series, colour) in panel.series.iter().zip(COLOURS.iter().cycle()) {
        let path: String = series.points.iter().map(|(at, value)| format!("{:.1},{:.1} ", x(*at), y(*value))).collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.2\" points=\"{}\"/>",
            path.trim_end()
        );
        let at = top - 6.0;
        let _ = writeln!(
            svg,
            "<text x=\"{legend:.1}\" y=\"{at:.1}\" text-anchor=\"end\" fill=\"{colour}\">{}</text>",
            series.name
        );
        legend -= 80.0;
    }
}

/// The next of 1, 2, 5, 10, 20, … that is not below.
fn nice(value: f64) -> f64 {
    let power = 10.0_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|nice| *nice >= value).unwrap_or(value)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round_and_lines_stay_in_their_panel() {
        assert!(
            (nice(0.7) - 1.0).abs() < 1e-9 && (nice(34.0) - 50.0).abs() < 1e-9 && (nice(200.0) - 200.0).abs() < 1e-6
        );
        let series = vec![Series { name: "a", points: vec![(0.0, 0.0), (10.0, 40.0)] }];
        let drawn = svg("t < u", MINUTES, &[Panel { title: "p", series }]);
        assert!(drawn.contains("points=\"60.0,160.0 880.0,64.0\""), "{drawn}");
        assert!(drawn.contains("t &lt; u"));
    }
}
