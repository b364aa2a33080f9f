//! The resolver: a thread of its own sends the workers' questions to the DNS. No worker blocks on it.
//!
//! The library's runtime exists on this thread only. It keeps no cache here: each core has its own, on the clock of the rules.

pub mod records;

use crate::base::dns::{Answer, Failure, Outcome, Question, RecordType};
use crate::settings::Dns;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts, ServerOrderingStrategy};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{self, Name};
use hickory_resolver::{TokioResolver, system_conf};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Semaphore, mpsc};

/// Timeout of one question: less than half of what a request waits, so that a domain whose servers do not know NAPTR is still found
/// by the questions that follow.
fn patience(dns: &Dns) -> Duration {
    Duration::from_millis(dns.timeout) * 9 / 20
}

/// How a worker asks. It never blocks.
#[derive(Clone)]
pub struct Asker(Sender<Order>);

/// Questions not yet taken up.
pub struct Inbox(Receiver<Order>);

enum Order {
    /// A question of this core.
    Ask(u8, Box<Question>),
    Configure(Dns),
    Stop,
}

/// Where answers go, by core.
pub type Deliver = Arc<dyn Fn(u8, Answer) + Send + Sync>;

/// The two ends between workers and resolver: `questions` may block.
pub fn open(questions: usize) -> (Asker, Inbox) {
    let (sender, receiver) = channel(questions.max(1));
    (Asker(sender), Inbox(receiver))
}

impl Asker {
    /// False: too many questions wait already, or the thread has ended.
    pub fn ask(&self, core: u8, question: Question) -> bool {
        let order = Order::Ask(core, Box::new(question));
        self.0.try_send(order).is_ok()
    }
}

/// The running thread. Dropping it stops it; questions under way then get no answer.
pub struct Resolver {
    orders: Asker,
}

impl Resolver {
    pub fn start(dns: Dns, asker: Asker, inbox: Inbox, deliver: Deliver) -> io::Result<Resolver> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        thread::Builder::new().name("resolver".to_owned()).spawn(move || runtime.block_on(serve(dns, inbox.0, deliver)))?;
        Ok(Resolver { orders: asker })
    }

    /// Sets other servers, or those read again from `/etc/resolv.conf`, for new questions. The limit of concurrent questions stays.
    /// False if the thread is too busy to take this.
    pub fn configure(&self, dns: Dns) -> bool {
        let order = Order::Configure(dns);
        self.orders.0.try_send(order).is_ok()
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // If it is too busy to take this, it ends with the process.
        let _ = self.orders.0.try_send(Order::Stop);
    }
}

/// What one question needs.
struct ResolverThread {
    library: Option<TokioResolver>,
    patience: Duration,
    deliver: Deliver,
    /// The last question had no answer: logged once, and once more when it is over.
    is_failing: Arc<AtomicBool>,
}

async fn serve(dns: Dns, mut orders: mpsc::Receiver<Order>, deliver: Deliver) {
    let places = Arc::new(Semaphore::new(dns.questions.max(1)));
    let is_failing = Arc::new(AtomicBool::new(false));
    let furnish = |dns: &Dns| {
        Arc::new(ResolverThread {
            library: library(dns),
            patience: patience(dns),
            deliver: deliver.clone(),
            is_failing: is_failing.clone(),
        })
    };
    let mut desk = furnish(&dns);
    // While all places are taken, questions wait in the channel, which is bounded: a worker is told if it is full.
    while let Ok(place) = places.clone().acquire_owned().await {
        match orders.recv().await {
            Some(Order::Ask(core, question)) => {
                let desk = desk.clone();
                tokio::spawn(async move {
                    let outcome = desk.look_up(&question).await;
                    let question = *question;
                    (desk.deliver)(core, Answer { question, outcome });
                    drop(place);
                });
            }
            Some(Order::Configure(dns)) => desk = furnish(&dns),
            Some(Order::Stop) | None => return,
        }
    }
}

impl ResolverThread {
    async fn look_up(&self, question: &Question) -> Outcome {
        let (Some(library), Ok(name)) = (&self.library, Name::from_ascii(format!("{}.", question.name))) else {
            return Outcome::Failed(Failure::Server);
        };
        let kind = match question.kind {
            RecordType::Naptr => rr::RecordType::NAPTR,
            RecordType::Srv => rr::RecordType::SRV,
            RecordType::A => rr::RecordType::A,
            RecordType::Aaaa => rr::RecordType::AAAA,
        };
        let found = tokio::time::timeout(self.patience, library.lookup(name, kind)).await;
        let (outcome, trouble) = match found {
            Ok(Ok(lookup)) => (records::found(question.kind, lookup.answers()), None),
            Ok(Err(error)) => (records::missing(&error), Some(error)),
            Err(_) => (Outcome::Failed(Failure::Silence), Some(NetError::Timeout)),
        };
        self.tell(question, &outcome, trouble);
        outcome
    }

    /// Logs one line when the servers fail, and one when they are back: the effect of a failure is logged by the code that asked.
    fn tell(&self, question: &Question, outcome: &Outcome, trouble: Option<NetError>) {
        let failing = matches!(outcome, Outcome::Failed(_));
        if self.is_failing.swap(failing, Ordering::Relaxed) == failing {
            return;
        }
        match trouble.filter(|_| failing) {
            Some(trouble) => log::warn!("dns: no answer for {} {}: {trouble}", question.name, question.kind.name()),
            None => log::info!("dns: questions are answered again"),
        }
    }
}

/// Returns `None`, and logs a line, if no server can be asked.
fn library(dns: &Dns) -> Option<TokioResolver> {
    let built = match dns.servers.is_empty() {
        true => system_conf::read_system_conf(),
        false => {
            let servers = dns.servers.iter().map(server).collect();
            let mut options = ResolverOpts::default();
            options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
            Ok((ResolverConfig::from_name_servers(servers), options))
        }
    };
    let library = built.and_then(|(config, mut options)| {
        options.timeout = Duration::from_millis(dns.timeout) / 5;
        options.attempts = 1;
        options.cache_size = 0;
        // The shortest TTL along a chain of aliases counts.
        options.preserve_intermediates = true;
        options.edns0 = true;
        options.max_active_requests = dns.questions.max(1);
        let provider = TokioRuntimeProvider::default();
        TokioResolver::builder_with_config(config, provider).with_options(options).build()
    });
    library.inspect_err(|error| log::warn!("dns: names cannot be resolved: {error}")).ok()
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let at = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}
