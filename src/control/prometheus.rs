//! The metrics endpoint: Prometheus's text format 0.0.4 at `/metrics`, and for probes `/health` and `/ready`, over HTTP/1.1 (RFC 9112), one
//! request per connection.
//!
//! Strangers may be able to reach it, so everything is bounded: how many are served at a time, how long a request may be, how long
//! it may take to arrive, and how long fetching the answer may take.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::acceptor::{Acceptor, Service};
use super::guests::Place;
use super::{ControlApi, HealthReport};
use crate::base::metric::{Families, Kind};

/// The media type, with the version of the format that we write.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The most header lines that a request may have.
const HEADERS_MOST: usize = 64;

/// How long we read what a client still sends after its answer. If closed at once, the answer might be lost.
const FAREWELL: Duration = Duration::from_millis(250);

/// Limits and timeouts of the endpoint.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Clients at a time. For a further one the oldest idle client is closed; if none is idle, it is answered 503.
    pub clients: usize,
    /// The most bytes of a request up to its empty line.
    pub head: usize,
    /// How long these may take to arrive.
    pub patience: Duration,
    /// How long fetching the answer may take.
    pub unread: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { clients: 8, head: 8 * 1024, patience: Duration::from_secs(5), unread: Duration::from_secs(5) }
    }
}

/// A running metrics endpoint. Dropping it stops accepting; answers in progress are finished.
pub struct PrometheusEndpoint {
    _acceptor: Acceptor<Scrapes>,
    address: SocketAddr,
}

struct Scrapes {
    api: Arc<dyn ControlApi>,
    bounds: Bounds,
}

impl PrometheusEndpoint {
    pub fn start(address: SocketAddr, api: Arc<dyn ControlApi>, bounds: Bounds) -> Result<PrometheusEndpoint, String> {
        let explain = |error: io::Error| format!("[metrics] address {address}: {error}");
        let listener = TcpListener::bind(address).map_err(explain)?;
        let address = listener.local_addr().map_err(explain)?;
        let most = bounds.clients;
        let acceptor = Acceptor::start(listener, Scrapes { api, bounds }, most).map_err(explain)?;
        Ok(PrometheusEndpoint { _acceptor: acceptor, address })
    }

    /// Returns the address it listens on, with the port that the kernel chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Service for Scrapes {
    type Listener = TcpListener;

    const NAME: &'static str = "metrics";
    const THREAD: &'static str = "metrics";

    /// Reads one request, answers it, and closes.
    fn serve(&self, stream: &TcpStream, place: &Place<TcpStream>) -> io::Result<()> {
        let Some((answer, with_body)) = self.read(stream, place)? else {
            return Ok(());
        };
        let bytes = answer.bytes(with_body);
        let deadline = Instant::now() + self.bounds.unread;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            stream.set_write_timeout(Some(left(deadline)?))?;
            let mut writer = stream;
            match writer.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        stream.shutdown(Shutdown::Write)?;
        let deadline = Instant::now() + FAREWELL;
        let mut scratch = [0; 1024];
        for _ in 0..HEADERS_MOST {
            stream.set_read_timeout(Some(left(deadline)?))?;
            let mut reader = stream;
            if reader.read(&mut scratch)? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn turn_away(&self, mut stream: &TcpStream) -> io::Result<()> {
        let busy = Answer::error("503 Service Unavailable", "try again\n");
        stream.write_all(&busy.bytes(true))
    }
}

impl Scrapes {
    /// Returns the answer to the request, and whether its body is wanted; `None` if the request never arrived. The whole head has
    /// one deadline, so that sending a byte now and then does not keep a place.
    fn read(&self, stream: &TcpStream, place: &Place<TcpStream>) -> io::Result<Option<(Answer, bool)>> {
        let deadline = Instant::now() + self.bounds.patience;
        let mut head = Vec::new();
        let mut bite = [0; 2048];
        loop {
            stream.set_read_timeout(Some(left(deadline)?))?;
            let mut reader = stream;
            let count = match reader.read(&mut bite) {
                Ok(0) => return Ok(None),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            head.extend_from_slice(bite.get(..count).unwrap_or_default());
            // While an answer is made it cannot be interrupted, so this client does not give way.
            if !place.set_busy(true) {
                return Ok(None);
            }
            let answer = self.answer(&head);
            place.set_busy(false);
            if answer.is_some() {
                return Ok(answer);
            }
            if head.len() > self.bounds.head {
                let status = "431 Request Header Fields Too Large";
                return Ok(Some((Answer::error(status, "too long\n"), true)));
            }
        }
    }

    /// Returns `None` until the head is complete.
    fn answer(&self, head: &[u8]) -> Option<(Answer, bool)> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MOST];
        let mut request = httparse::Request::new(&mut headers);
        let bad = |why: &str| Some((Answer::error("400 Bad Request", why), true));
        match request.parse(head) {
            Ok(status) if status.is_partial() => return None,
            Ok(_) => {}
            Err(httparse::Error::TooManyHeaders) => {
                let status = "431 Request Header Fields Too Large";
                return Some((Answer::error(status, "too many\n"), true));
            }
            Err(error) => return bad(&format!("{error}\n")),
        }
        let (Some(method), Some(target)) = (request.method, request.path) else {
            return bad("no request\n");
        };
        let hosts = request.headers.iter();
        let hosts = hosts.filter(|header| header.name.eq_ignore_ascii_case("host"));
        // RFC 9112 §3.2.
        match (request.version, hosts.count()) {
            (Some(1), 1) | (Some(0), _) => {}
            _ => return bad("one Host is needed\n"),
        }
        let with_body = method != "HEAD";
        let answer = match path(target) {
            "/metrics" | "/health" | "/ready" if !matches!(method, "GET" | "HEAD") => {
                let mut answer = Answer::error("405 Method Not Allowed", "GET or HEAD\n");
                answer.extra = "Allow: GET, HEAD\r\n";
                answer
            }
            "/metrics" => {
                let mut body = String::new();
                write_text(&self.api.metrics(), &mut body);
                Answer::new("200 OK", CONTENT_TYPE, body)
            }
            "/health" => Answer::health(&self.api.health(), HealthReport::is_alive),
            "/ready" => Answer::health(&self.api.health(), HealthReport::is_ready),
            _ => Answer::error("404 Not Found", "there are /metrics, /health and /ready\n"),
        };
        Some((answer, with_body))
    }
}

/// Returns the path of a request's target, in origin form or absolute form (RFC 9112 §3.2).
fn path(target: &str) -> &str {
    let target = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    target.split(['?', '#']).next().unwrap_or_default()
}

/// Returns the time left, or an error if the deadline has passed.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

struct Answer {
    status: &'static str,
    content_type: &'static str,
    /// Further header lines.
    extra: &'static str,
    body: String,
}

impl Answer {
    fn new(status: &'static str, content_type: &'static str, body: String) -> Answer {
        Answer { status, content_type, extra: "", body }
    }

    /// What a probe is told. No cache may keep it.
    fn health(report: &HealthReport, is_good: fn(&HealthReport) -> bool) -> Answer {
        let status = match is_good(report) {
            true => "200 OK",
            false => "503 Service Unavailable",
        };
        Answer { extra: "Cache-Control: no-store\r\n", ..Answer::error(status, &report.text()) }
    }

    fn error(status: &'static str, why: &str) -> Answer {
        Answer::new(status, "text/plain; charset=utf-8", why.to_owned())
    }

    fn bytes(&self, with_body: bool) -> Vec<u8> {
        let mut text = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{}Connection: close\r\n\r\n",
            self.status,
            self.content_type,
            self.body.len(),
            self.extra
        );
        if with_body {
            text.push_str(&self.body);
        }
        text.into_bytes()
    }
}

/// Writes the text format: for each family HELP, TYPE and its samples.
pub fn write_text(families: &Families, out: &mut String) {
    for family in families.iter() {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP {} {help}", family.name);
        let _ = writeln!(out, "# TYPE {} {kind}", family.name);
        for sample in &family.samples {
            let _ = match sample.value {
                value if value == f64::INFINITY => writeln!(out, "{} +Inf", sample.name),
                value if value == f64::NEG_INFINITY => writeln!(out, "{} -Inf", sample.name),
                value => writeln!(out, "{} {value}", sample.name),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AorEntry, ConnectionEntry, Draining, NewBinding, Refusal};
    use super::*;

    #[derive(Default)]
    struct Table {
        health: HealthReport,
    }

    impl ControlApi for Table {
        fn version(&self) -> String {
            unreachable!("a scrape asks for metrics only")
        }

        fn metrics(&self) -> Families {
            let mut families = Families::default();
            let things = families.counter("a_things_total", "Things \\ of\ntwo lines.");
            things.of(&[("name", &"q\"u\\o\nte")], 3u64);
            things.of(&[("name", &"plain")], 1u64 << 50);
            families.gauge("b_none", "Without a sample.");
            families.histogram("c_seconds", "Time.", &[0.00001, 1.0], &[1, 0, 1], 12.5);
            families
        }

        fn health(&self) -> HealthReport {
            self.health.clone()
        }

        fn connections(&self) -> Vec<ConnectionEntry> {
            Vec::new()
        }

        fn reload(&self) -> Result<String, Refusal> {
            Ok(String::new())
        }

        fn drain(&self, _: Option<Duration>, _: bool) -> Result<Draining, Refusal> {
            Err(Refusal::Refused(String::new()))
        }

        fn log(&self, _: Option<&str>) -> Result<String, Refusal> {
            Ok(String::new())
        }

        fn ul_show(&self, _: Option<&str>) -> Result<Vec<AorEntry>, Refusal> {
            Ok(Vec::new())
        }

        fn ul_add(&self, _: &NewBinding) -> Result<u32, Refusal> {
            Ok(0)
        }

        fn ul_rm(&self, _: &str, _: Option<&str>) -> Result<usize, Refusal> {
            Ok(0)
        }
    }

    const TEXT: &str = r#"# HELP a_things_total Things \\ of\ntwo lines.
# TYPE a_things_total counter
a_things_total{name="q\"u\\o\nte"} 3
a_things_total{name="plain"} 1125899906842624
# HELP b_none Without a sample.
# TYPE b_none gauge
# HELP c_seconds Time.
# TYPE c_seconds histogram
c_seconds_bucket{le="0.00001"} 1
c_seconds_bucket{le="1"} 1
c_seconds_bucket{le="+Inf"} 2
c_seconds_sum 12.5
c_seconds_count 2
"#;

    fn started(bounds: Bounds) -> PrometheusEndpoint {
        serving(Table::default(), bounds)
    }

    fn serving(table: Table, bounds: Bounds) -> PrometheusEndpoint {
        let any = "127.0.0.1:0".parse().unwrap();
        PrometheusEndpoint::start(any, Arc::new(table), bounds).unwrap()
    }

    /// Returns the head and the body of the answer.
    fn ask(scrape: &PrometheusEndpoint, request: &str) -> (String, String) {
        let mut stream = TcpStream::connect(scrape.address()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        hear(stream)
    }

    fn hear(mut stream: TcpStream) -> (String, String) {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        let (head, body) = all.split_once("\r\n\r\n").expect("an answer");
        (format!("{head}\r\n"), body.to_owned())
    }

    #[test]
    fn a_scrape_gets_the_text() {
        let scrape = started(Bounds::default());
        let (head, body) = ask(&scrape, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
        let length = format!("\r\nContent-Length: {}\r\n", TEXT.len());
        assert!(head.contains(&length), "{head}");
        assert_eq!(body, TEXT);
        for request in
            ["GET /metrics?name[]=x HTTP/1.0\r\n\r\n", "GET http://a:1/metrics HTTP/1.1\r\nhost:a\r\nAccept: */*\r\n\r\n"]
        {
            let (again, body) = ask(&scrape, request);
            assert_eq!((again, body), (head.clone(), TEXT.to_owned()), "{request}");
        }
        let (again, body) = ask(&scrape, "HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((again, body), (head, String::new()));
    }

    #[test]
    fn what_is_no_scrape_is_told_so() {
        let scrape = started(Bounds::default());
        let many = "a: b\r\n".repeat(HEADERS_MOST + 1);
        for (request, status) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "404"),
            ("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "404"),
            ("GET /metrics/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "404"),
            ("POST /ready HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".to_owned(), "405"),
            ("GET /healthy HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "404"),
            ("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".to_owned(), "405"),
            ("GET /metrics HTTP/1.1\r\n\r\n".to_owned(), "400"),
            ("GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), "400"),
            ("OPTIONS sip:a SIP/2.0\r\n\r\n".to_owned(), "400"),
            ("\x16\x03\x01\x02".to_owned(), "400"),
            (format!("GET /metrics HTTP/1.1\r\n{many}\r\n"), "431"),
            (format!("GET /{} HTTP/1.1\r\n", "x".repeat(9 * 1024)), "431"),
        ] {
            let (head, _) = ask(&scrape, &request);
            let line = format!("HTTP/1.1 {status} ");
            assert!(head.starts_with(&line), "{request:?}: {head}");
            assert_eq!(head.contains("\r\nAllow: GET, HEAD\r\n"), status == "405", "{head}");
        }
    }

    #[test]
    fn probes_hear_whether_it_lives_and_whether_it_is_ready() {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<String>>();
        for (dead, unready, notes, healthy, ready, text) in [
            (&[][..], &[][..], &[][..], "200", "200", "alive and ready\n"),
            (&[], &[], &["the disk"], "200", "200", "alive and ready\nnote: the disk\n"),
            (&[], &["draining"], &[], "200", "503", "alive, not ready\ndraining\n"),
            (&["worker 1"], &["draining"], &["x"], "503", "503", "not alive\nworker 1\ndraining\nnote: x\n"),
        ] {
            let health = HealthReport { dead: lines(dead), unready: lines(unready), notes: lines(notes) };
            let scrape = serving(Table { health }, Bounds::default());
            for (path, status) in [("health", healthy), ("ready", ready)] {
                let (head, body) = ask(&scrape, &format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n"));
                assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {head}");
                assert!(head.contains("\r\nCache-Control: no-store\r\n"), "{head}");
                assert_eq!(body, text);
                let (again, body) = ask(&scrape, &format!("HEAD /{path} HTTP/1.1\r\nHost: a\r\n\r\n"));
                assert_eq!((again, body.as_str()), (head, ""));
            }
        }
    }

    #[test]
    fn who_is_slow_is_closed_and_the_oldest_that_idles_gives_way() {
        let scrape = started(Bounds { clients: 2, patience: Duration::from_millis(400), ..Bounds::default() });
        let began = Instant::now();
        let connect = || TcpStream::connect(scrape.address()).unwrap();
        let slow: Vec<TcpStream> = (0..2).map(|_| connect()).collect();
        while scrape._acceptor.clients().served() < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (head, _) = ask(&scrape, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(scrape._acceptor.clients().displaced(), 1);
        assert!(began.elapsed() < Duration::from_millis(390), "it had to wait");
        let mut slow = slow.into_iter();
        assert_eq!(slow.next().unwrap().read(&mut [0]).unwrap_or(0), 0, "the oldest");
        // A byte now and then does not keep the place.
        for mut stream in slow {
            while stream.write_all(b"G").is_ok() {
                assert!(began.elapsed() < Duration::from_secs(20), "still served");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        assert!(began.elapsed() >= Duration::from_millis(390));
    }

    #[test]
    fn it_goes_with_its_owner_and_its_address_is_free_again() {
        let scrape = started(Bounds::default());
        let address = scrape.address();
        assert!(PrometheusEndpoint::start(address, Arc::new(Table::default()), Bounds::default()).is_err());
        drop(scrape);
        assert!(TcpStream::connect(address).is_err());
        drop(PrometheusEndpoint::start(address, Arc::new(Table::default()), Bounds::default()).unwrap());
    }
}
