//! Many things at the same time: as many requests as pay off, and no more
//! computing than there are cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Requests at the same time to a place that is far.
const REQUESTS: usize = 8;

/// A bound for requests, and one for computing.
#[derive(Debug)]
pub struct Workers {
    threads: usize,
    /// Cores that nobody computes on.
    idle: Mutex<usize>,
    freed: Condvar,
}

impl Workers {
    /// As many as pay off: where what is asked is near, no more than cores.
    pub fn new(is_near: bool) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            threads: if is_near { cores } else { cores.max(REQUESTS) },
            idle: Mutex::new(cores),
            freed: Condvar::new(),
        }
    }

    /// Does something for each item, and gives what came of it in their order.
    /// Nothing is begun after an error.
    pub fn each<T, R, E>(
        &self,
        items: &[T],
        work: impl Fn(&T) -> Result<R, E> + Sync,
    ) -> Result<Vec<R>, E>
    where
        T: Sync,
        R: Send,
        E: Send,
    {
        let next = AtomicUsize::new(0);
        let done = Mutex::new((Vec::with_capacity(items.len()), None));
        let one = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(number) else {
                    return;
                };
                let result = work(item);
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                match result {
                    Ok(result) => done.0.push((number, result)),
                    Err(error) => {
                        next.store(items.len(), Ordering::Relaxed);
                        done.1.get_or_insert(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.threads.min(items.len()) {
                scope.spawn(one);
            }
        });
        let (mut results, error) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = error {
            return Err(error);
        }
        results.sort_by_key(|(number, _)| *number);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }

    /// Computes something as soon as a core is idle.
    pub fn compute<R>(&self, work: impl FnOnce() -> R) -> R {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = self.freed.wait_while(idle, |idle| *idle == 0);
        *idle.unwrap_or_else(PoisonError::into_inner) -= 1;
        let _back = Back(self);
        work()
    }
}

/// Gives a core back, whatever happens.
struct Back<'a>(&'a Workers);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        let idle = self.0.idle.lock();
        *idle.unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_an_error_ends_it() {
        let items: Vec<usize> = (0..100).collect();
        for is_near in [true, false] {
            let workers = Workers::new(is_near);
            let doubled = workers.each(&items, |item| Ok::<_, ()>(workers.compute(|| item * 2)));
            assert_eq!(doubled.unwrap()[99], 198);
            let failed = workers.each(&items, |item| if *item == 3 { Err(*item) } else { Ok(()) });
            assert_eq!(failed, Err(3));
        }
        let none: Vec<usize> = Vec::new();
        let workers = Workers::new(true);
        assert_eq!(workers.each(&none, |_| Ok::<(), ()>(())), Ok(vec![]));
    }
}
