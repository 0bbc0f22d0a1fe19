//! Threads for requests that wait.

use crate::{Work, service::spawn_confined};
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};
use tracing::warn;

/// Bytes of a thread's stack; jobs use a few KiB.
const STACK: usize = 256 << 10;

/// What a thread of the pool does.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs, as many at once as it has threads. Dropping it forgets jobs that wait, and ends when those that run have ended.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    name: String,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    ends: bool,
}

impl Pool {
    /// A pool of `count` threads called `name`, shut in to serve a disk. They are there from the start: who asks for a job may not start any.
    ///
    /// # Errors
    /// The host has no room for the threads, or cannot shut them in.
    pub(crate) fn new(name: &str, count: usize) -> io::Result<Self> {
        let mut pool = Self { shared: Arc::default(), name: name.to_owned(), threads: Vec::new() };
        for _ in 0..count {
            let shared = Arc::clone(&pool.shared);
            pool.threads.push(spawn_confined(name.to_owned(), STACK, Work::Disk, move || shared.work())?);
        }
        Ok(pool)
    }

    /// Has a job done.
    pub(crate) fn run(&self, job: Job) {
        self.shared.lock().jobs.push_back(job);
        self.shared.work.notify_one();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.ends = true;
        state.jobs.clear();
        drop(state);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                warn!("a thread of {} panicked", self.name);
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        while !state.ends {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.lock();
            } else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{Barrier, mpsc},
        thread,
    };

    #[test]
    fn jobs_run_side_by_side_up_to_the_limit() {
        let pool = Pool::new("test", 3).unwrap();
        let (together, (done, finished)) = (Arc::new(Barrier::new(3)), mpsc::channel());
        for _ in 0..9 {
            let (together, done) = (Arc::clone(&together), done.clone());
            let job = move || {
                // Passes only where three run at once.
                together.wait();
                done.send(thread::current().name().map(str::to_owned)).unwrap();
            };
            pool.run(Box::new(job));
        }
        for _ in 0..9 {
            assert_eq!(finished.recv().unwrap().as_deref(), Some("test"));
        }
        assert_eq!(pool.threads.len(), 3);
    }

    #[test]
    fn the_end_waits_for_what_runs_and_forgets_what_waits() {
        let pool = Pool::new("test", 1).unwrap();
        let (begun, begin) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let (done, finished) = mpsc::channel();
        let first = done.clone();
        let running = move || {
            begun.send(()).unwrap();
            gone.recv().unwrap();
            first.send(1).unwrap();
        };
        pool.run(Box::new(running));
        begin.recv().unwrap();
        pool.run(Box::new(move || done.send(2).unwrap()));
        let shared = Arc::clone(&pool.shared);
        let end = thread::spawn(move || drop(pool));
        while !shared.lock().ends {
            thread::yield_now();
        }
        go.send(()).unwrap();
        end.join().unwrap();
        assert_eq!(finished.iter().collect::<Vec<_>>(), [1]);
    }
}
