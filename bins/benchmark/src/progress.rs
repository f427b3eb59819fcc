//! One line about what is going on, on terminals only.

use indicatif::{ProgressBar, ProgressStyle};

/// A line on the terminal's error output, which other outputs never see.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// An empty line. It is not animated: that would cost the processor time that is measured.
    pub(crate) fn new() -> Self {
        let style =
            ProgressStyle::with_template("{elapsed_precise} {msg}").expect("the template is valid");
        Self { bar: ProgressBar::new_spinner().with_style(style) }
    }

    /// Replaces the line.
    pub(crate) fn say(&self, text: &str) {
        self.bar.set_message(text.to_owned());
        self.bar.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
