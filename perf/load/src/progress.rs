//! What is shown on standard error while it runs: lines, and on a terminal a bar for the steps of a sweep or a search.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub struct Progress {
    quiet: bool,
    /// Only on a terminal, and where there are several steps.
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `steps`: how many loads are expected, one after the other.
    pub fn new(quiet: bool, steps: u64) -> Progress {
        let shows = !quiet && steps > 1 && io::stderr().is_terminal();
        Progress { quiet, bar: shows.then(|| bar(steps)) }
    }

    /// One step is done: always told, except where all is quiet.
    pub fn step(&self, text: &str) {
        if let Some(bar) = &self.bar {
            // How long a search is, is known when it ends.
            if bar.length().is_some_and(|length| bar.position() >= length) {
                bar.set_length(bar.position() + 1);
            }
            bar.inc(1);
        }
        self.line(text);
    }

    /// What is so at the moment.
    pub fn live(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.trim_start().to_string()),
            None => self.line(text),
        }
    }

    pub fn line(&self, text: &str) {
        match &self.bar {
            _ if self.quiet => {}
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}");
    // Drawn by the loop itself when it says something: a thread for it would run on the generator's core when it pleases.
    let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr_with_hz(2));
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}
