//! Scale drawing of coherent memory and its BARs, as SVG and as text.

use std::fmt::Write;

use varia_facts::Bytes;
use varia_spec::vfio::RegionIndex;

/// A region of memory, and the BAR or device-specific region that presents the memory.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    /// `usemem` or `resmem`.
    pub(crate) name: &'static str,
    /// Region index.
    pub(crate) index: u32,
    /// Offset from the start of the memory in bytes.
    pub(crate) offset: u64,
    /// Length of the memory in bytes.
    pub(crate) length: u64,
    /// Size of the region in bytes.
    pub(crate) size: u64,
    /// True for cached memory.
    pub(crate) cached: bool,
}

/// Memory of a device and its BARs.
#[derive(Clone, Debug)]
pub(crate) struct Drawing {
    /// Name of the profile.
    pub(crate) title: String,
    /// Host-physical address of the memory.
    pub(crate) base: u64,
    /// Size of the memory in bytes.
    pub(crate) size: u64,
    /// Regions, in order of offset.
    pub(crate) regions: Vec<Drawn>,
}

impl Drawn {
    /// Name of the region: `BAR4`, or `region 9` for a device-specific one.
    pub(crate) fn place(&self) -> String {
        match RegionIndex(self.index).bar() {
            Some(bar) => format!("BAR{bar}"),
            None => format!("region {}", self.index),
        }
    }
}

const TOP: f64 = 96.0;
const HEIGHT: f64 = 520.0;
/// Left edge and width of the memory's column.
const MEMORY: (f64, f64) = (320.0, 110.0);
/// Left edge of the first BAR's column, width, and distance to the next.
const BARS: (f64, f64, f64) = (560.0, 110.0, 240.0);
/// Right edge of the regions' names.
const NAMES: f64 = 190.0;
const CACHED: &str = "#4c8eda";
const UNCACHED: &str = "#e08e2b";

fn colour(region: &Drawn) -> &'static str {
    if region.cached { CACHED } else { UNCACHED }
}

impl Drawing {
    /// Size of the largest drawn range in bytes, which gets the full height.
    fn tallest(&self) -> u64 {
        self.regions
            .iter()
            .map(|region| region.size)
            .chain([self.size])
            .max()
            .unwrap_or(1)
            .max(1)
    }

    /// Draws an SVG document.
    pub(crate) fn svg(&self) -> String {
        let scale = HEIGHT / self.tallest() as f64;
        let width = BARS.0 + BARS.2 * self.regions.len() as f64 + 30.0;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n\
             <defs><pattern id=\"none\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\" \
             patternTransform=\"rotate(45)\"><rect width=\"8\" height=\"8\" fill=\"#f4f4f4\"/>\
             <line x1=\"0\" y1=\"0\" x2=\"0\" y2=\"8\" stroke=\"#bbb\" stroke-width=\"2\"/></pattern></defs>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
            TOP + HEIGHT + 70.0
        );
        let text = |x: f64, y: f64, anchor: &str, style: &str, line: &str| {
            format!(
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {style}>{line}</text>\n"
            )
        };
        out += &text(
            20.0,
            32.0,
            "start",
            "font-size=\"18\" font-weight=\"bold\"",
            &self.title,
        );
        out += &text(20.0, 52.0, "start", "fill=\"#555\"", "drawn to scale");
        let middle = MEMORY.0 + MEMORY.1 / 2.0;
        out += &text(
            middle,
            TOP - 12.0,
            "middle",
            "font-weight=\"bold\"",
            "memory on the host",
        );
        let right = MEMORY.0 - 10.0;
        out += &text(
            right,
            TOP + 5.0,
            "end",
            "fill=\"#555\"",
            &format!("{:#x}", self.base),
        );
        let end = TOP + self.size as f64 * scale;
        let last = format!("{:#x}", self.base.saturating_add(self.size));
        out += &text(right, end + 5.0, "end", "fill=\"#555\"", &last);
        let rect = |x: f64, y: f64, width: f64, height: f64, fill: &str| {
            // A thin region must stay visible.
            let height = height.max(1.5);
            format!(
                "<rect x=\"{x:.1}\" y=\"{y:.2}\" width=\"{width:.1}\" height=\"{height:.2}\" \
                 fill=\"{fill}\" stroke=\"#333\" stroke-width=\"0.7\"/>\n"
            )
        };
        let place = |column: usize, region: &Drawn| {
            let x = BARS.0 + BARS.2 * column as f64;
            (
                x,
                TOP + region.offset as f64 * scale,
                region.length as f64 * scale,
            )
        };
        for (column, region) in self.regions.iter().enumerate() {
            let (x, y, used) = place(column, region);
            let left = MEMORY.0 + MEMORY.1;
            out += &format!(
                "<polygon points=\"{left},{y:.2} {x},{y:.2} {x},{:.2} {left},{:.2}\" \
                 fill=\"{}\" opacity=\"0.14\"/>\n",
                y + used,
                y + used,
                colour(region)
            );
        }
        for (column, region) in self.regions.iter().enumerate() {
            let (x, y, used) = place(column, region);
            let fill = colour(region);
            out += &rect(MEMORY.0, y, MEMORY.1, used, fill);
            out += &rect(x, y, BARS.1, used, fill);
            if region.size > region.length {
                let padding = (region.size - region.length) as f64 * scale;
                out += &rect(x, y + used, BARS.1, padding, "url(#none)");
            }
            let head = format!("{} = {}", region.place(), Bytes(region.size));
            out += &text(x, y - 28.0, "start", "font-weight=\"bold\"", &head);
            let kind = if region.cached { "cached" } else { "uncached" };
            let what = format!("{}, {kind}: {}", region.name, Bytes(region.length));
            let style = format!("fill=\"{fill}\"");
            out += &text(x, y - 12.0, "start", &style, &what);
            let label = format!("{} {}", region.name, Bytes(region.length));
            out += &text(NAMES, y + used / 2.0 + 4.0, "end", &style, &label);
        }
        if self.has_padding() {
            let legend = TOP + HEIGHT + 34.0;
            out += &rect(20.0, legend, 22.0, 14.0, "url(#none)");
            let beyond = "beyond the memory: reads 0xFF, drops writes, can't be mapped";
            out += &text(50.0, legend + 12.0, "start", "", beyond);
        }
        out += "</svg>\n";
        out
    }

    /// Draws `rows` lines of text, to scale: a column for the memory and a column for each BAR; `#`
    /// cached, `=` uncached, `.` beyond the memory.
    pub(crate) fn text(&self, rows: u64) -> String {
        let tallest = u128::from(self.tallest());
        let position = |row: u64| (u128::from(row) * tallest / u128::from(rows)) as u64;
        // A row shows the region that covers most of the row, but each region has at least one row.
        let cell = |row: u64, start: u64, end: u64| {
            let (from, to) = (position(row), position(row + 1));
            let middle = from + (to - from) / 2;
            (start..end).contains(&middle) || (from..to).contains(&start) && end <= to
        };
        let mut out = format!("{:<22}", "memory on the host");
        for region in &self.regions {
            let _ = write!(
                out,
                "{:<26}",
                format!("{} ({})", region.place(), region.name)
            );
        }
        out = out.trim_end().to_owned() + "\n";
        for row in 0..rows {
            let shade = |region: &Drawn| if region.cached { '#' } else { '=' };
            // Later regions are smaller and win a shared row.
            let memory = self
                .regions
                .iter()
                .rev()
                .find(|region| cell(row, region.offset, region.offset + region.length))
                .map_or(' ', shade);
            let mut line = format!("{:<22}", String::from(memory).repeat(12));
            for region in &self.regions {
                let used = cell(row, 0, region.length);
                let bar = cell(row, 0, region.size);
                let shade = if used {
                    shade(region)
                } else if bar {
                    '.'
                } else {
                    ' '
                };
                let _ = write!(line, "{:<26}", String::from(shade).repeat(12));
            }
            out += line.trim_end();
            out.push('\n');
        }
        out += &format!("{:<22}", Bytes(self.size).to_string());
        for region in &self.regions {
            let _ = write!(
                out,
                "{:<26}",
                format!("{} of {}", Bytes(region.length), Bytes(region.size))
            );
        }
        let padding = match self.has_padding() {
            true => "  . beyond the memory: reads 0xFF",
            false => "",
        };
        format!("{}\n# cached  = uncached{padding}\n", out.trim_end())
    }

    /// True if a region is larger than its memory.
    fn has_padding(&self) -> bool {
        self.regions.iter().any(|it| it.size > it.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn gh200() -> Drawing {
        let region = |name, index, offset, length, size| Drawn {
            name,
            index,
            offset,
            length,
            size,
            cached: index == 4,
        };
        Drawing {
            title: "gh200".into(),
            base: 0x4200_0000_0000,
            size: 96 * GIB,
            regions: vec![
                region("usemem", 4, 0, 95 * GIB, 128 * GIB),
                region("resmem", 2, 95 * GIB, GIB, GIB),
            ],
        }
    }

    #[test]
    fn the_text_is_to_scale_and_shows_the_smallest_region() {
        let text = gh200().text(32);
        let rows: Vec<&str> = text.lines().skip(1).take(32).collect();
        let count = |column: usize, shade: char| {
            rows.iter()
                .filter(|row| row.chars().nth(column) == Some(shade))
                .count()
        };
        // 32 rows of 4 GiB: 95 GiB are 24 rows of BAR4's 32, the other 8 are padding.
        assert_eq!((count(22, '#'), count(22, '.')), (24, 8), "{text}");
        assert_eq!(count(0, '='), 1, "{text}");
        assert_eq!(count(48, '='), 1, "{text}");
        assert!(text.contains("95 GiB of 128 GiB"), "{text}");
    }

    #[test]
    fn the_svg_has_one_rectangle_for_each_part_at_its_height() {
        let svg = gh200().svg();
        // Background, pattern and legend apart: two in the memory, two used, one padding.
        assert_eq!(svg.matches("<rect x=").count(), 6, "{svg}");
        let usemem = HEIGHT * 95.0 / 128.0;
        assert!(svg.contains(&format!("height=\"{usemem:.2}\"")), "{svg}");
        assert!(svg.contains("BAR4 = 128 GiB") && svg.contains("BAR2 = 1 GiB"));
    }

    #[test]
    fn padding_is_explained_where_there_is_some() {
        let mut drawing = gh200();
        assert!(drawing.svg().contains("beyond") && drawing.text(32).contains("beyond"));
        drawing
            .regions
            .iter_mut()
            .for_each(|it| it.size = it.length);
        assert!(!drawing.svg().contains("beyond") && !drawing.text(32).contains("beyond"));
    }
}
