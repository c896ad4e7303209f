// SPDX-License-Identifier: GPL-2.0

//! Work spread over threads whose results come back in order.

use std::sync::mpsc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;

/// How many threads to work with.
pub fn workers() -> usize {
    thread::available_parallelism().map_or(2, |cpus| cpus.get().clamp(1, 16))
}

/// Lets `work` run on everything that `produce` returns, in several threads, and hands the results to `consume`
/// in the order of production.
///
/// `produce` runs in a thread of its own, `consume` in the caller's. At most `ahead` pieces are under way, so
/// memory stays bounded however slow the caller is.
///
/// # Errors
///
/// The first error of `consume`; what was under way is thrown away.
pub fn run<I: Send, O: Send, E>(
    ahead: usize,
    mut produce: impl FnMut() -> Option<I> + Send,
    work: impl Fn(I) -> O + Sync,
    mut consume: impl FnMut(O) -> Result<(), E>,
) -> Result<(), E> {
    let (to_workers, jobs) = mpsc::sync_channel::<(I, mpsc::SyncSender<O>)>(ahead);
    let (in_order, results) = mpsc::sync_channel::<mpsc::Receiver<O>>(ahead);
    let jobs = Mutex::new(jobs);
    let (jobs, work) = (&jobs, &work);
    thread::scope(|scope| {
        scope.spawn(move || {
            while let Some(item) = produce() {
                let (to_consumer, result) = mpsc::sync_channel(1);
                // Fails if the consumer has stopped: nobody wants more.
                if in_order.send(result).is_err() || to_workers.send((item, to_consumer)).is_err() {
                    return;
                }
            }
        });
        for _ in 0..workers() {
            scope.spawn(move || loop {
                let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok((item, to_consumer)) = job else { return };
                let _ = to_consumer.send(work(item));
            });
        }
        for result in results {
            let Ok(result) = result.recv() else { break };
            consume(result)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_an_error_stops_the_work() {
        let mut next = 0;
        let mut produce = move || {
            next += 1;
            (next <= 1000).then_some(next)
        };
        let mut seen = Vec::new();
        run::<_, _, ()>(
            4,
            &mut produce,
            |item| item * 2,
            |result| {
                seen.push(result);
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(seen, (1..=1000).map(|item| item * 2).collect::<Vec<_>>());

        let endless = || Some(1);
        let mut left = 10;
        let stopped = run(
            4,
            endless,
            |item| item,
            |_| {
                left -= 1;
                if left == 0 {
                    Err("enough")
                } else {
                    Ok(())
                }
            },
        );
        assert_eq!(stopped, Err("enough"));
    }
}
