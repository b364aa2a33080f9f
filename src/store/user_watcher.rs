//! The store's thread: checks once a second whether the users have changed, reads them anew and hands them on. The old set is
//! dropped here too, since that takes a while if there are millions.

use super::loaded::UsersError;
use super::users::{Loaded, Source};
use crate::stack::auth::users::Users;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{io, mem};

/// How often the source is checked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Consecutive checks that may find a database locked before it is logged.
const BUSY_LOOKS: u32 = 10;

/// The longest pause between two batches of reading.
const REST_MOST: Duration = Duration::from_millis(20);

/// Called with new users. It must not wait for long.
pub type Publish = Box<dyn Fn(&Arc<Users>) + Send>;

/// The thread that keeps the users. Dropping it ends the thread.
pub struct UserWatcher {
    /// The file that is watched, or will be when the thread has taken the last order.
    path: Mutex<Option<PathBuf>>,
    orders: Mutex<Sender<Order>>,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    /// Read now, changed or not; report the result to the caller that waits.
    Read(Option<Sender<Result<(), String>>>),
    /// Watch another source from now on, whose users were read already; or none.
    Switch(Option<Box<(Source, Loaded)>>, Sender<()>),
    Stop,
}

/// State that other threads may see.
struct State {
    users: AtomicUsize,
    is_unreadable: AtomicBool,
    /// Told to stop: reading must end.
    is_stopping: AtomicBool,
}

impl UserWatcher {
    /// Starts the thread. `users` are those in force, as `source` gave them; every later set goes to `publish`.
    pub fn start(source: Source, users: Arc<Users>, publish: Publish) -> io::Result<UserWatcher> {
        let (orders, inbox) = mpsc::channel();
        let path = Mutex::new(Some(source.path().to_owned()));
        let state = Arc::new(State {
            users: AtomicUsize::new(users.len()),
            is_unreadable: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
        });
        let desk =
            WatcherThread { source: Some(source), publish, state: state.clone(), users, replaced: Vec::new(), busy_looks: 0 };
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || desk.run(&inbox))?;
        Ok(UserWatcher { path, orders: Mutex::new(orders), state, thread: Some(thread) })
    }

    /// Users in force.
    pub fn users(&self) -> usize {
        self.state.users.load(Ordering::Relaxed)
    }

    /// Returns whether this is the file that is watched.
    pub fn watches(&self, path: &Path) -> bool {
        self.path.lock().unwrap_or_else(PoisonError::into_inner).as_deref() == Some(path)
    }

    /// The source cannot be read now; the previous users are in force.
    pub fn is_unreadable(&self) -> bool {
        self.state.is_unreadable.load(Ordering::Relaxed)
    }

    /// Has the users read at once.
    #[cfg(test)]
    fn read_soon(&self) {
        self.order(Order::Read(None));
    }

    /// The same, and waits for the result: the error is one line.
    pub fn read_now(&self, patience: Duration) -> Result<(), String> {
        let (reply, answer) = mpsc::channel();
        self.order(Order::Read(Some(reply)));
        match answer.recv_timeout(patience) {
            Ok(outcome) => outcome,
            Err(_) => Err("the users are still being read; see the log".to_owned()),
        }
    }

    /// Switches to another source, as `source` gave its users; `None`: no users. Returns when they were handed on, or when the
    /// thread has been busy with the previous ones for too long: then the switch is still to come.
    pub fn switch(&self, users: Option<(Source, Loaded)>, patience: Duration) {
        *self.path.lock().unwrap_or_else(PoisonError::into_inner) = users.as_ref().map(|(source, _)| source.path().to_owned());
        let (reply, answer) = mpsc::channel();
        self.order(Order::Switch(users.map(Box::new), reply));
        let _ = answer.recv_timeout(patience);
    }

    fn order(&self, order: Order) {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        // The thread ends only after we have told it to.
        let _ = orders.send(order);
    }
}

impl Drop for UserWatcher {
    fn drop(&mut self) {
        self.state.is_stopping.store(true, Ordering::Relaxed);
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the store's thread panicked");
        }
    }
}

/// The state of the thread.
struct WatcherThread {
    /// `None`: nobody is challenged any more.
    source: Option<Source>,
    publish: Publish,
    state: Arc<State>,
    /// The users in force.
    users: Arc<Users>,
    /// Earlier users, until no worker holds them any more: dropping the last reference frees their memory.
    replaced: Vec<Arc<Users>>,
    busy_looks: u32,
}

impl WatcherThread {
    fn run(mut self, inbox: &Receiver<Order>) {
        loop {
            match inbox.recv_timeout(INTERVAL) {
                Ok(Order::Read(reply)) => {
                    let outcome = self.read();
                    if let Some(reply) = reply {
                        // The caller may have given up waiting.
                        let _ = reply.send(outcome);
                    }
                }
                Ok(Order::Switch(users, reply)) => {
                    self.switch(users);
                    let _ = reply.send(());
                }
                Err(RecvTimeoutError::Timeout) => self.look(),
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            self.replaced.retain(|users| Arc::strong_count(users) > 1);
        }
    }

    fn read(&mut self) -> Result<(), String> {
        let Some(source) = &mut self.source else {
            return Ok(());
        };
        let read = source.read(&mut rest(&self.state));
        match read {
            Ok(loaded) => {
                log::info!("{}", summary(source, &loaded));
                self.hand_on(loaded.users);
                Ok(())
            }
            Err(UsersError::Busy(what) | UsersError::Bad(what)) => {
                self.complain(&what);
                Err(format!("users are unchanged: {what}"))
            }
        }
    }

    fn look(&mut self) {
        let Some(source) = &mut self.source else {
            return;
        };
        let read = source.read_changed(&mut rest(&self.state));
        match read {
            Ok(None) => {
                self.busy_looks = 0;
                if self.state.is_unreadable.swap(false, Ordering::Relaxed) {
                    log::info!("users can be read again, and have not changed");
                }
            }
            Ok(Some(loaded)) => {
                log::info!("{}", summary(source, &loaded));
                self.hand_on(loaded.users);
            }
            Err(UsersError::Busy(what)) => {
                self.busy_looks += 1;
                if self.busy_looks == BUSY_LOOKS {
                    self.complain(&what);
                }
            }
            Err(UsersError::Bad(what)) => {
                // Once, until it is readable again.
                if !self.state.is_unreadable.load(Ordering::Relaxed) {
                    self.complain(&what);
                }
            }
        }
    }

    fn complain(&self, what: &str) {
        if self.state.is_stopping.load(Ordering::Relaxed) {
            return;
        }
        self.state.is_unreadable.store(true, Ordering::Relaxed);
        log::error!("users are unchanged: {what}");
    }

    fn switch(&mut self, users: Option<Box<(Source, Loaded)>>) {
        let (source, users) = match users {
            Some(both) => {
                let (source, loaded) = *both;
                log::info!("{}", summary(&source, &loaded));
                (Some(source), loaded.users)
            }
            None => (None, Users::default()),
        };
        self.source = source;
        self.hand_on(users);
    }

    fn hand_on(&mut self, users: Users) {
        self.busy_looks = 0;
        self.state.is_unreadable.store(false, Ordering::Relaxed);
        let users = Arc::new(users);
        self.state.users.store(users.len(), Ordering::Relaxed);
        let replaced = mem::replace(&mut self.users, users);
        self.replaced.push(replaced);
        (self.publish)(&self.users);
    }
}

/// Returns a line that says how many users were read, and what is wrong with some.
pub fn summary(source: &Source, loaded: &Loaded) -> String {
    let (path, users, unusable) = (source.path(), loaded.users.len(), &loaded.unusable);
    let mut line = format!("users read from {}: {users}", path.display());
    if users > 0 {
        line.push_str(&format!(" ({})", loaded.users.kinds()));
    }
    if unusable.count > 0 {
        let (count, first) = (unusable.count, &unusable.first);
        line.push_str(&format!("; {count} of its rows cannot be used as they are, the first: {first}"));
    }
    line
}

/// Rests for as long as the work since the last rest took. A worker may be on the same core, and must not wait for all of it.
fn rest(state: &State) -> impl FnMut() -> bool {
    let mut since = Instant::now();
    move || {
        thread::sleep(since.elapsed().min(REST_MOST));
        since = Instant::now();
        !state.is_stopping.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Key;
    use std::fs;

    const MD5: &str = "0123456789abcdef0123456789abcdef";

    fn write(path: &Path, names: &[&str]) {
        let lines: String = names.iter().map(|name| format!("{name}:a:{MD5}\n")).collect();
        fs::write(path, lines).unwrap();
    }

    /// Waits until `test` holds; fails after ten seconds.
    fn until(what: &str, mut test: impl FnMut() -> bool) {
        let start = Instant::now();
        while !test() {
            assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A worker as the watcher sees it: it holds on to the users in force.
    #[derive(Clone, Default)]
    struct Worker(Arc<Mutex<Vec<Arc<Users>>>>);

    impl Worker {
        fn publish(&self) -> Publish {
            let all = self.0.clone();
            Box::new(move |users| all.lock().unwrap().push(users.clone()))
        }

        fn sets(&self) -> usize {
            self.0.lock().unwrap().len()
        }
    }

    fn started(path: &Path, worker: &Worker) -> UserWatcher {
        let mut source = Source::new(path, Key::new(1, 2));
        let loaded = source.read(&mut || true).unwrap();
        let users = Arc::new(loaded.users);
        UserWatcher::start(source, users, worker.publish()).unwrap()
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn changes_are_seen_and_handed_on_and_what_is_bad_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (path, worker) = (folder.path().join("users"), Worker::default());
        write(&path, &["alice"]);
        let keeper = started(&path, &worker);
        assert_eq!(keeper.users(), 1);
        write(&path, &["alice", "bob"]);
        until("two users", || worker.sets() == 1);
        assert_eq!((keeper.users(), keeper.is_unreadable()), (2, false));

        fs::write(&path, "nonsense").unwrap();
        until("unreadable", || keeper.is_unreadable());
        let said = keeper.read_now(PATIENCE).unwrap_err();
        assert!(said.contains("users:1: a line must be"), "{said}");
        assert_eq!((keeper.users(), worker.sets()), (2, 1));
        write(&path, &["alice", "bob", "carol"]);
        until("three users", || worker.sets() == 2);
        assert_eq!((keeper.users(), keeper.is_unreadable()), (3, false));
        let last = worker.0.lock().unwrap().last().cloned().unwrap();
        assert!(last.find(b"carol", b"a").is_some());
    }

    #[test]
    fn another_source_takes_the_place_of_the_first_and_none_the_place_of_both() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        let worker = Worker::default();
        write(&first, &["alice"]);
        write(&second, &["bob", "carol"]);
        let keeper = started(&first, &worker);
        let mut source = Source::new(&second, Key::new(1, 2));
        let loaded = source.read(&mut || true).unwrap();
        keeper.switch(Some((source, loaded)), PATIENCE);
        assert_eq!((keeper.users(), worker.sets()), (2, 1), "at once");
        // The second one is watched, the first one is not.
        write(&first, &["alice", "dave", "eve"]);
        write(&second, &["bob"]);
        until("the second file is read", || keeper.users() == 1);
        let last = worker.0.lock().unwrap().last().cloned().unwrap();
        assert!(last.find(b"bob", b"a").is_some() && last.find(b"alice", b"a").is_none());

        keeper.switch(None, PATIENCE);
        assert_eq!(keeper.users(), 0);
        fs::remove_file(&second).unwrap();
        assert_eq!(keeper.read_now(PATIENCE), Ok(()));
        assert!(!keeper.is_unreadable());
    }

    #[test]
    fn who_asks_need_not_wait_for_the_next_look() {
        let folder = tempfile::tempdir().unwrap();
        let (path, worker) = (folder.path().join("users"), Worker::default());
        write(&path, &["alice"]);
        let keeper = started(&path, &worker);
        for round in 1..=20 {
            assert_eq!(keeper.read_now(PATIENCE), Ok(()));
            assert!(worker.sets() >= round, "read although nothing has changed");
        }
        keeper.read_soon();
        until("one more", || worker.sets() >= 21);
    }

    #[test]
    fn the_last_hold_on_the_users_of_before_is_the_keepers() {
        let folder = tempfile::tempdir().unwrap();
        let (path, worker) = (folder.path().join("users"), Worker::default());
        write(&path, &["alice"]);
        let keeper = started(&path, &worker);
        keeper.read_now(PATIENCE).unwrap();
        let held = Arc::downgrade(&worker.0.lock().unwrap()[0]);
        keeper.read_now(PATIENCE).unwrap();
        // They exist as long as a worker holds them; when it lets go, it is not the one that frees them.
        let own = worker.0.lock().unwrap().remove(0);
        assert!(Arc::strong_count(&own) >= 2, "the keeper holds on");
        drop(own);
        until("freed", || held.strong_count() == 0);
        drop(keeper);
    }
}
