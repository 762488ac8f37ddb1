//! Pages of HTML with plots in SVG.
//!
//! * What is not a literal of this program is escaped, in text and in attributes.
//! * Pages need nothing that is not in them or beside them: no script, no style in
//!   an attribute, so that a strict content security policy lets them be.
//! * Each plot has a caption, and says the same in a table where its user gives one.

use std::fmt::Write as _;

/// The look of all pages, light and dark.
pub const STYLE: &str = include_str!("markup/style.css");

/// The sign of all pages: things on a shelf.
pub const ICON: &str = include_str!("markup/icon.svg");

/// Markup that is being written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Html(String);

/// A cell of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Text.
    Text(String),
    /// Text that leads to a path of this site.
    Link {
        /// The path, as from [`path`].
        to: String,
        /// The text.
        text: String,
    },
    /// A hash or a name, in a fixed width.
    Code(String),
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::Text(text.to_string())
    }
}

impl Html {
    /// Adds markup of this program's own.
    pub fn raw(&mut self, markup: &'static str) {
        self.0.push_str(markup);
    }

    /// Adds text.
    pub fn text(&mut self, text: &str) {
        self.0.push_str(&escaped(text));
    }

    /// Adds other markup.
    pub fn add(&mut self, other: &Html) {
        self.0.push_str(&other.0);
    }

    /// Adds an element with nothing but text.
    pub fn element(&mut self, name: &'static str, text: &str) {
        let _ = writeln!(self.0, "<{name}>{}</{name}>", escaped(text)); // a string takes all
    }

    /// Adds a paragraph.
    pub fn paragraph(&mut self, text: &str) {
        self.element("p", text);
    }

    /// Adds a heading of the second rank.
    pub fn heading(&mut self, text: &str) {
        self.element("h2", text);
    }

    /// Adds a link to a path of this site.
    pub fn link(&mut self, to: &str, text: &str) {
        let _ = write!(self.0, "<a href=\"{}\">{}</a>", escaped(to), escaped(text)); // a string takes all
    }

    /// Adds a table; the first column names the row.
    pub fn table(&mut self, heading: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>) {
        self.raw("<div class=\"table\"><table>\n<thead><tr>");
        for cell in heading {
            let _ = write!(self.0, "<th scope=\"col\">{}</th>", escaped(cell)); // a string takes all
        }
        self.raw("</tr></thead>\n<tbody>\n");
        for row in rows {
            self.raw("<tr>");
            for (column, cell) in row.iter().enumerate() {
                let (open, close) = match column {
                    0 => ("<th scope=\"row\">", "</th>"),
                    _ => ("<td>", "</td>"),
                };
                self.raw(open);
                match cell {
                    Cell::Text(text) => self.text(text),
                    Cell::Link { to, text } => self.link(to, text),
                    Cell::Code(text) => {
                        let _ = write!(self.0, "<code>{}</code>", escaped(text)); // a string takes all
                    }
                }
                self.raw(close);
            }
            self.raw("</tr>\n");
        }
        self.raw("</tbody>\n</table></div>\n");
    }

    /// Adds terms with what each is.
    pub fn facts(&mut self, facts: &[(&str, String)]) {
        self.raw("<dl>\n");
        for (term, fact) in facts {
            self.raw("<div>");
            let _ = write!(
                self.0,
                "<dt>{}</dt><dd>{}</dd>",
                escaped(term),
                escaped(fact)
            ); // a string takes all
            self.raw("</div>\n");
        }
        self.raw("</dl>\n");
    }

    /// Adds a drawing with what it shows in words.
    pub fn figure(&mut self, caption: &str, drawing: &Drawing) {
        let caption = escaped(caption);
        let _ = writeln!(
            self.0,
            "<figure>\n<div class=\"plot\"><svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{caption}\">\n{}</svg></div>\n<figcaption>{caption}</figcaption>\n</figure>",
            drawing.width, drawing.height, drawing.shapes
        ); // a string takes all
    }

    /// The whole page around this body.
    pub fn page(&self, title: &str, style: Style) -> String {
        let mut page = Self::default();
        page.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        page.element("title", title);
        match style {
            Style::Inside => {
                page.raw("<style>\n");
                page.raw(STYLE);
                page.raw("</style>\n");
            }
            Style::Beside { style, icon } => {
                page.raw("<link rel=\"stylesheet\" href=\"");
                page.raw(style);
                page.raw("\">\n<link rel=\"icon\" href=\"");
                page.raw(icon);
                page.raw("\">\n");
            }
        }
        page.raw("</head>\n<body>\n");
        page.add(self);
        page.raw("</body>\n</html>\n");
        page.0
    }
}

/// Where a page has its look from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// It is in the page, which then needs nothing else.
    Inside,
    /// It is beside the page, at these paths of the site.
    Beside {
        /// [`STYLE`].
        style: &'static str,
        /// [`ICON`].
        icon: &'static str,
    },
}

/// A path of this site: its parts, with all that is special in paths encoded
/// (RFC 3986, section 2.3, unreserved characters stay).
pub fn path(parts: &[&str]) -> String {
    let mut path = String::new();
    for part in parts {
        path.push('/');
        for byte in part.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                path.push(char::from(byte));
            } else {
                let _ = write!(path, "%{byte:02X}"); // a string takes all
            }
        }
    }
    path
}

/// Text that is safe between tags and in attributes.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// Shapes in a frame; lengths are in units of the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawing {
    width: u32,
    height: u32,
    shapes: String,
}

/// Where text stands beside its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// It begins there.
    Start,
    /// It is around it.
    Middle,
    /// It ends there.
    End,
}

impl Drawing {
    /// An empty frame.
    pub fn new(width: u32, height: u32) -> Self {
        Self {
            width,
            height,
            shapes: String::new(),
        }
    }

    /// A straight line.
    pub fn line(&mut self, class: &'static str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = writeln!(
            self.shapes,
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ); // a string takes all
    }

    /// A line through points.
    pub fn curve(&mut self, class: &'static str, points: impl IntoIterator<Item = (f64, f64)>) {
        let points = points.into_iter().map(|(x, y)| format!("{x:.1},{y:.1}"));
        let points: Vec<String> = points.collect();
        let _ = writeln!(
            self.shapes,
            "<polyline class=\"{class}\" points=\"{}\"/>",
            points.join(" ")
        ); // a string takes all
    }

    /// A bar, with what a pointer over it is told.
    pub fn bar(
        &mut self,
        class: &'static str,
        (x, y): (f64, f64),
        (width, height): (f64, f64),
        told: &str,
    ) {
        let _ = writeln!(
            self.shapes,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
            width.max(0.0),
            height.max(0.0),
            escaped(told)
        ); // a string takes all
    }

    /// A dot, with what a pointer over it is told.
    pub fn dot(&mut self, class: &'static str, (x, y): (f64, f64), told: &str) {
        let _ = writeln!(
            self.shapes,
            "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{}</title></circle>",
            escaped(told)
        ); // a string takes all
    }

    /// Text at a point.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = writeln!(
            self.shapes,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escaped(text)
        ); // a string takes all
    }
}

/// Where [`columns`] and [`shares`] are in their frames.
const LEFT: f64 = 60.0;
const TOP: f64 = 10.0;
const WIDTH: f64 = 630.0;
const HEIGHT: f64 = 200.0;

/// Places in a row for as many things, with those of them that have a label: as
/// many as fit side by side.
fn pitch(count: usize) -> (f64, usize) {
    let count = count.max(1) as f64;
    (WIDTH / count, (count / 8.0).ceil().max(1.0) as usize)
}

/// Columns side by side, such as one a day, the largest as high as the frame.
/// `unit` is said behind each value.
pub fn columns(values: &[(String, f64)], unit: &str) -> Drawing {
    let mut drawing = Drawing::new(700, 240);
    let highest = values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let top = ceiling(highest);
    for step in 0..=5 {
        let value = top * f64::from(step) / 5.0;
        let y = TOP + HEIGHT * (1.0 - f64::from(step) / 5.0);
        drawing.line("axis", (LEFT, y), (LEFT + WIDTH, y));
        drawing.text((LEFT - 6.0, y + 4.0), Anchor::End, &short(value));
    }
    let (pitch, every) = pitch(values.len());
    for (number, (label, value)) in values.iter().enumerate() {
        let x = LEFT + pitch * number as f64;
        let height = HEIGHT * value / top;
        let told = format!("{label}: {} {unit}", short(*value));
        let (at, size) = (
            (x + pitch * 0.1, TOP + HEIGHT - height),
            (pitch * 0.8, height),
        );
        drawing.bar("bar", at, size, &told);
        if number % every == 0 {
            let under = (x + pitch / 2.0, TOP + HEIGHT + 18.0);
            drawing.text(under, Anchor::Middle, label);
        }
    }
    drawing
}

/// What one line of [`shares`] shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Its class: `one`, `two` or `three`.
    pub class: &'static str,
    /// What it is.
    pub name: &'static str,
    /// A share at each place, from 0 to 1; none where there is nothing to say.
    pub values: Vec<Option<f64>>,
}

/// Lines of shares side by side, such as one value a day; a line ends where a value
/// is missing, and begins again behind it.
pub fn shares(labels: &[String], lines: &[Line]) -> Drawing {
    let mut drawing = Drawing::new(700, 270);
    for step in 0..=4 {
        let y = TOP + HEIGHT * (1.0 - f64::from(step) / 4.0);
        drawing.line("axis", (LEFT, y), (LEFT + WIDTH, y));
        drawing.text(
            (LEFT - 6.0, y + 4.0),
            Anchor::End,
            &format!("{} %", step * 25),
        );
    }
    let (pitch, every) = pitch(labels.len());
    let right = |number: usize| LEFT + pitch * (number as f64 + 0.5);
    for (number, label) in labels.iter().enumerate().step_by(every) {
        let under = (right(number), TOP + HEIGHT + 18.0);
        drawing.text(under, Anchor::Middle, label);
    }
    for (place, line) in lines.iter().enumerate() {
        let values = line.values.iter().enumerate();
        let points: Vec<(usize, f64)> = values
            .filter_map(|(number, value)| Some((number, (*value)?.clamp(0.0, 1.0))))
            .collect();
        let at = |(number, share): &(usize, f64)| (right(*number), TOP + HEIGHT * (1.0 - share));
        for run in points.chunk_by(|a, b| a.0 + 1 == b.0) {
            drawing.curve(line.class, run.iter().map(at));
        }
        for point in &points {
            let day = labels.get(point.0).map_or("", String::as_str);
            let told = format!("{day}, {}: {:.1} %", line.name, point.1 * 100.0);
            drawing.dot(line.class, at(point), &told);
        }
        let (x, y) = (LEFT + 215.0 * place as f64, TOP + HEIGHT + 45.0);
        drawing.line(line.class, (x, y), (x + 30.0, y));
        drawing.text((x + 36.0, y + 4.0), Anchor::Start, line.name);
    }
    drawing
}

/// The next number above that is 1, 2 or 5 with zeros, so that an axis is easy to
/// read; 1 for nothing.
fn ceiling(value: f64) -> f64 {
    if !value.is_finite() || value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= value)
        .unwrap_or(10.0 * power)
}

/// A number in a few characters.
pub fn short(value: f64) -> String {
    let units = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    for (size, unit) in units {
        if value.abs() >= size {
            let scaled = value / size;
            return match scaled.abs() >= 100.0 {
                true => format!("{scaled:.0}{unit}"),
                false => format!("{}{unit}", trimmed(scaled)),
            };
        }
    }
    trimmed(value)
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: &str = "<script>alert(\"1\")</script>&'";
    const TAMED: &str = "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;";

    #[test]
    fn nothing_of_others_is_markup() {
        let mut html = Html::default();
        html.text(EVIL);
        html.heading(EVIL);
        html.link(EVIL, EVIL);
        html.facts(&[(EVIL, EVIL.to_owned())]);
        let cells = [
            Cell::from(EVIL),
            Cell::Code(EVIL.to_owned()),
            Cell::Link {
                to: path(&[EVIL]),
                text: EVIL.to_owned(),
            },
        ];
        html.table(&[EVIL], [cells.to_vec()]);
        html.figure(EVIL, &columns(&[(EVIL.to_owned(), 1.0)], EVIL));
        let page = html.page(
            EVIL,
            Style::Beside {
                style: "/style.css",
                icon: "/icon.svg",
            },
        );
        assert!(!page.contains("<script"), "{page}");
        assert!(!page.contains("alert(\""), "{page}");
        assert!(page.matches(TAMED).count() >= 12, "{page}");
        assert!(!page.contains("style="), "{page}");
    }

    #[test]
    fn paths_have_no_more_parts_than_they_were_given() {
        assert_eq!(path(&["a b", "../c"]), "/a%20b/..%2Fc");
        assert_eq!(path(&["é?#"]), "/%C3%A9%3F%23");
        assert_eq!(path(&[]), "");
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, end) in [
            (0.0, 1.0),
            (0.3, 0.5),
            (1.0, 1.0),
            (1.1, 2.0),
            (49.0, 50.0),
            (700.0, 1000.0),
            (f64::NAN, 1.0),
        ] {
            assert!((ceiling(value) - end).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn numbers_are_short() {
        let shortened = [0.0, 7.25, 999.0, 1_000.0, 12_345.0, 123_456.0, 5e6, 7.77e9].map(short);
        let expected = ["0", "7.2", "999", "1k", "12.3k", "123k", "5M", "7.8G"];
        assert_eq!(shortened, expected);
    }

    #[test]
    fn columns_are_as_high_as_their_values() {
        let values = [("1".to_owned(), 10.0), ("2".to_owned(), 5.0)];
        let drawing = columns(&values, "s");
        assert!(drawing.shapes.contains("height=\"200.0\"><title>1: 10 s"));
        assert!(drawing.shapes.contains("height=\"100.0\"><title>2: 5 s"));
        // Nothing at all is a frame.
        assert!(!columns(&[], "s").shapes.contains("NaN"));
    }

    #[test]
    fn a_line_of_shares_is_broken_where_one_is_missing() {
        let labels = ["a", "b", "c", "d"].map(str::to_owned);
        let line = Line {
            class: "one",
            name: "<hits>",
            values: vec![Some(1.0), Some(0.5), None, Some(0.0)],
        };
        let shapes = shares(&labels, &[line]).shapes;
        assert_eq!(shapes.matches("<polyline").count(), 2, "{shapes}");
        assert_eq!(shapes.matches("<circle").count(), 3, "{shapes}");
        let dot = "cy=\"110.0\" r=\"3\"><title>b, &lt;hits&gt;: 50.0 %</title>";
        assert!(shapes.contains(dot), "{shapes}");
        assert!(!shares(&[], &[]).shapes.contains("NaN"));
    }
}
