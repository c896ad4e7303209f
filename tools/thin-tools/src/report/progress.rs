// SPDX-License-Identifier: GPL-2.0

//! How far a tool is and how long it will take, on standard error.
//!
//! On a terminal a bar appears once a tool has run for a second; elsewhere a line
//! `Progress: N%` is printed every five seconds.

use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// How long a tool may run before its bar appears.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the bar moves.
const TICK: Duration = Duration::from_millis(500);
/// How often a line is printed where there is no terminal.
const LINE: Duration = Duration::from_secs(5);
/// How long the bar is, in characters.
const BAR: usize = 40;

/// Where progress goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// Nowhere.
    Quiet,
    /// Lines.
    Plain,
    /// A bar that is drawn over and over.
    Bar,
}

impl Sink {
    /// What suits standard error, or nothing at all.
    pub fn choose(quiet: bool) -> Self {
        if quiet {
            Self::Quiet
        } else if io::stderr().is_terminal() {
            Self::Bar
        } else {
            Self::Plain
        }
    }
}

/// The bar that is on the screen, as wide as it is; guards standard error.
static SCREEN: Mutex<usize> = Mutex::new(0);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes to standard error after wiping a bar off it. Nothing can be done about errors there.
pub(super) fn beside_bar(write: impl FnOnce(&mut io::Stderr) -> io::Result<()>) {
    let mut width = lock(&SCREEN);
    let mut out = io::stderr();
    if *width > 0 {
        let _ = write!(out, "\r{:1$}\r", "", *width);
        *width = 0;
    }
    let _ = write(&mut out);
}

/// How much is done of how much; shared with worker threads.
#[derive(Default)]
pub struct Counter {
    done: AtomicU64,
    total: AtomicU64,
}

impl Counter {
    /// `more` is done.
    pub fn advance(&self, more: u64) {
        self.done.fetch_add(more, Ordering::Relaxed);
    }

    /// In all, `done` is done.
    pub fn set(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    /// In all, there is `total` to do. Of 0, nothing is shown.
    pub fn set_total(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// The done part, in thousandths.
    fn permille(&self) -> Option<u64> {
        let total = self.total.load(Ordering::Relaxed);
        let done = self.done.load(Ordering::Relaxed).min(total);
        u128::from(done)
            .checked_mul(1000)?
            .checked_div(u128::from(total))
            .and_then(|part| u64::try_from(part).ok())
    }
}

struct Shared {
    title: String,
    sink: Sink,
    counter: Arc<Counter>,
    stage: Mutex<String>,
    finished: Mutex<bool>,
    changed: Condvar,
}

/// Shows progress from its making until it is dropped.
pub struct Progress {
    shared: Arc<Shared>,
    monitor: Option<thread::JoinHandle<()>>,
}

impl Progress {
    /// Starts showing the progress of `title`, of which nothing is done yet.
    pub fn start(title: &str, sink: Sink) -> Self {
        let shared = Arc::new(Shared {
            title: title.to_string(),
            sink,
            counter: Arc::default(),
            stage: Mutex::default(),
            finished: Mutex::new(false),
            changed: Condvar::new(),
        });
        let monitor = (sink != Sink::Quiet)
            .then(|| {
                let shared = Arc::clone(&shared);
                thread::Builder::new()
                    .name("progress".into())
                    .spawn(move || monitor(&shared))
                    .ok()
            })
            .flatten();
        Self { shared, monitor }
    }

    /// What counts the work done; may be handed to other threads.
    pub fn counter(&self) -> Arc<Counter> {
        Arc::clone(&self.shared.counter)
    }

    /// Names the part of the work that begins now, of `total` (0: unknown). The count starts anew.
    pub fn stage(&self, name: &str, total: u64) {
        *lock(&self.shared.stage) = name.to_string();
        self.shared.counter.set(0);
        self.shared.counter.set_total(total);
    }

    /// Prints a line where lines are printed: a title, or that a part of the work begins.
    pub fn note(&self, text: &str) {
        if self.shared.sink == Sink::Plain {
            super::say(text);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        *lock(&self.shared.finished) = true;
        self.shared.changed.notify_all();
        if let Some(monitor) = self.monitor.take() {
            let _ = monitor.join();
        }
        if self.shared.sink == Sink::Bar {
            beside_bar(|_| Ok(()));
        }
    }
}

fn monitor(shared: &Shared) {
    let start = Instant::now();
    // Since when the current stage runs, to estimate how long it takes.
    let mut stage = (lock(&shared.stage).clone(), start);
    let mut last_line = start;
    let mut finished = lock(&shared.finished);
    while !*finished {
        finished = shared
            .changed
            .wait_timeout(finished, TICK)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        if *finished {
            return;
        }
        let now = Instant::now();
        let name = lock(&shared.stage).clone();
        if stage.0 != name {
            stage = (name, now);
        }
        let Some(permille) = shared.counter.permille() else {
            continue;
        };
        match shared.sink {
            Sink::Bar if now - start >= PATIENCE => draw(shared, permille, &stage.0, now - stage.1),
            Sink::Plain if now - last_line >= LINE => {
                last_line = now;
                beside_bar(|out| writeln!(out, "Progress: {}%", permille / 10));
            }
            _ => {}
        }
    }
}

fn draw(shared: &Shared, permille: u64, stage: &str, running: Duration) {
    let filled = usize::try_from(permille).unwrap_or(0) * BAR / 1000;
    let arrow = if filled < BAR { ">" } else { "" };
    let bar = format!("{}{arrow}", "=".repeat(filled));
    let mut line = format!("{} [{bar:<BAR$}] {:3}%", shared.title, permille / 10);
    if let Some(left) = remaining(permille, running) {
        line.push_str(&format!(" Remaining {left}"));
    }
    if !stage.is_empty() {
        line.push_str(&format!(", {stage}"));
    }
    let mut width = lock(&SCREEN);
    let wipe = width.saturating_sub(line.chars().count());
    *width = line.chars().count();
    let mut out = io::stderr();
    let _ = write!(out, "\r{line}{:wipe$}", "");
    let _ = out.flush();
}

/// How long the rest takes if it goes on as it went so far.
fn remaining(permille: u64, running: Duration) -> Option<String> {
    let left = running
        .as_secs()
        .checked_mul(1000u64.checked_sub(permille)?)?;
    let seconds = left.checked_div(permille)?;
    Some(if seconds >= 3600 {
        format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60)
    } else if seconds >= 60 {
        format!("{}m{:02}s", seconds / 60, seconds % 60)
    } else {
        format!("{seconds}s")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_do_not_leave_the_scale() {
        let counter = Counter::default();
        assert_eq!(counter.permille(), None);
        counter.set_total(u64::MAX);
        counter.set(u64::MAX);
        assert_eq!(counter.permille(), Some(1000));
        counter.set_total(10);
        assert_eq!(counter.permille(), Some(1000));
        counter.set(1);
        assert_eq!(counter.permille(), Some(100));
    }

    #[test]
    fn the_estimate_follows_the_pace() {
        assert_eq!(remaining(0, Duration::from_secs(9)), None);
        assert_eq!(
            remaining(500, Duration::from_secs(9)).as_deref(),
            Some("9s")
        );
        assert_eq!(
            remaining(100, Duration::from_secs(60)).as_deref(),
            Some("9m00s")
        );
        assert_eq!(
            remaining(10, Duration::from_secs(60)).as_deref(),
            Some("1h39m")
        );
    }
}
