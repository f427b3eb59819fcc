//! Waking many tasks of one network thread at the price of one.
//!
//! A change that hundreds of streams wait for wakes them one by one, and from another thread each
//! of these is a system call. Here only the first is: the others join a list that the thread goes
//! through before it sleeps again.

use std::cell::RefCell;
use std::sync::Arc;
use std::task::{Context, Waker};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

thread_local! {
    static HERE: RefCell<Option<Arc<Wakes>>> = const { RefCell::new(None) };
}

/// The tasks of one thread that are to be woken.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    /// Woken by themselves if nobody goes through the list.
    waiting: Mutex<Waiting>,
    thread: AtomicWaker,
}

#[derive(Debug, Default)]
struct Waiting {
    tasks: Vec<Waker>,
    /// Somebody goes through the list.
    attended: bool,
}

impl Wakes {
    /// Those of this thread.
    pub(crate) fn here() -> Arc<Self> {
        HERE.with_borrow_mut(|here| here.get_or_insert_default().clone())
    }

    /// Wakes a task of that thread soon.
    pub(crate) fn wake(&self, task: Waker) {
        let mut waiting = self.waiting.lock();
        if !waiting.attended {
            drop(waiting);
            task.wake();
            return;
        }
        waiting.tasks.push(task);
        let first = waiting.tasks.len() == 1;
        drop(waiting);
        if first {
            self.thread.wake();
        }
    }

    /// Wakes those on the list, on their own thread, and has `context` woken for the next ones.
    pub(crate) fn attend(&self, context: &mut Context<'_>) {
        self.thread.register(context.waker());
        let tasks = {
            let mut waiting = self.waiting.lock();
            waiting.attended = true;
            std::mem::take(&mut waiting.tasks)
        };
        tasks.into_iter().for_each(Waker::wake);
    }

    /// From now on every task is woken by itself.
    pub(crate) fn leave(&self) {
        let tasks = {
            let mut waiting = self.waiting.lock();
            waiting.attended = false;
            std::mem::take(&mut waiting.tasks)
        };
        tasks.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn many_tasks_cost_their_thread_one_wake() {
        let (thread, task) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let counts = || (thread.0.load(Ordering::Relaxed), task.0.load(Ordering::Relaxed));
        let wakes = Wakes::default();
        wakes.wake(task.clone().into());
        assert_eq!(counts(), (0, 1), "nobody attends yet");
        let waker = thread.clone().into();
        wakes.attend(&mut Context::from_waker(&waker));
        for _ in 0..3 {
            wakes.wake(task.clone().into());
        }
        assert_eq!(counts(), (1, 1));
        wakes.attend(&mut Context::from_waker(&waker));
        assert_eq!(counts(), (1, 4));
        wakes.wake(task.clone().into());
        wakes.leave();
        wakes.wake(task.clone().into());
        assert_eq!(counts(), (2, 6));
    }
}
