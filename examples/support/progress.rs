//! Progress bars on stderr, where that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const COUNTS: &str = "{msg:<10} {bar:40.cyan/dim} {percent:>3} %  {pos} of {len}  {eta} left";
const BYTES: &str = "{msg:<10} {bar:40.cyan/dim} {percent:>3} %  {bytes} of {total_bytes}  {eta} left";

/// Makes bars, or hidden ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bars {
    pub(crate) quiet: bool,
}

impl Bars {
    pub(crate) fn counts(self, what: &'static str) -> Bar {
        self.bar(what, COUNTS)
    }

    pub(crate) fn bytes(self, what: &'static str) -> Bar {
        self.bar(what, BYTES)
    }

    fn bar(self, what: &'static str, template: &str) -> Bar {
        // Drawn nowhere if stderr is no terminal.
        let target = if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let style = ProgressStyle::with_template(template).expect("a constant template").progress_chars("━╸─");
        Bar(ProgressBar::with_draw_target(None, target).with_style(style).with_message(what))
    }
}

/// A bar that goes away when the work is over, however it ends.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A function to be told `done` and `all`.
    pub(crate) fn teller(&self) -> impl Fn(u64, u64) + Send + Sync + 'static {
        let bar = self.0.clone();
        move |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
