//! Plots: one bar chart for each benchmark and figure that several cases share.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::report::{Figure, short};

const BAR_HEIGHT: u32 = 24;
const MARGIN_HEIGHT: u32 = 70;
const WIDTH: u32 = 900;
/// Room for the names of cases.
const NAMES_WIDTH: u32 = 210;

/// Writes one SVG for each quantity that at least two cases have, the ratios and some percentiles of `http` left out.
pub(crate) fn write(figures: &[Figure], folder: &Path) -> Result<Vec<PathBuf>> {
    let mut titles: Vec<(&str, &str)> = figures.iter().map(|figure| (figure.bench, figure.name.as_str())).collect();
    titles.sort_unstable();
    titles.dedup();
    let mut written = Vec::new();
    for (bench, name) in titles {
        let same = |figure: &&Figure| (figure.bench, figure.name.as_str()) == (bench, name);
        let bars: Vec<&Figure> = figures.iter().filter(same).filter(|figure| figure.median().is_finite()).collect();
        if bars.len() < 2
            || name.contains("against")
            || (bench == "http" && (name.starts_with("p50") || name.starts_with("p99.9")))
        {
            continue;
        }
        let words: Vec<&str> = name.split(|letter: char| !letter.is_ascii_alphanumeric()).collect();
        let path = folder.join(format!("{bench}-{}.svg", words.join("-").to_lowercase()));
        draw(&path, &format!("{bench}: {name} ({})", bars[0].unit), &bars).map_err(|error| anyhow!("plot: {error}"))?;
        written.push(path);
    }
    Ok(written)
}

fn draw(path: &Path, title: &str, bars: &[&Figure]) -> Result<(), Box<dyn std::error::Error>> {
    let count = bars.len() as i32;
    let area = SVGBackend::new(path, (WIDTH, MARGIN_HEIGHT + BAR_HEIGHT * bars.len() as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let most = bars.iter().map(|figure| figure.median()).fold(f64::MIN_POSITIVE, f64::max) * 1.15;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(NAMES_WIDTH)
        .build_cartesian_2d(0.0..most, (0..count - 1).into_segmented())?;
    let name = |at: &SegmentValue<i32>| match at {
        SegmentValue::CenterOf(index) if *index < count => bars[(count - 1 - index) as usize].case.clone(),
        _ => String::new(),
    };
    chart.configure_mesh().disable_y_mesh().y_labels(bars.len()).y_label_formatter(&name).draw()?;
    for (index, figure) in bars.iter().rev().enumerate() {
        let (index, value) = (index as i32, figure.median());
        let colour = if figure.noisy { RGBColor(190, 190, 190) } else { RGBColor(70, 110, 160) };
        let corners = [(0.0, SegmentValue::Exact(index)), (value, SegmentValue::Exact(index + 1))];
        let mut bar = Rectangle::new(corners, colour.filled());
        bar.set_margin(4, 4, 0, 0);
        chart.draw_series(std::iter::once(bar))?;
        let label = format!(" {}{}", short(value), if figure.noisy { " noisy" } else { "" });
        let text = Text::new(label, (value, SegmentValue::CenterOf(index)), ("sans-serif", 12));
        chart.draw_series(std::iter::once(text))?;
    }
    area.present()?;
    Ok(())
}
