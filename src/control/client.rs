//! The control socket's client, used by the commands that query a running server.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    AorEntry, ConnectionEntry, Draining, HealthReport, NewBinding, Restarted, Sample, Targets, TraceEvent, TraceQuery, Traced,
    TrunkEntry,
};

/// How long the server may be silent. It sends nothing while it collects a large answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it may be silent while it is restarted.
const RESTART: Duration = Duration::from_secs(150);

/// A connection to a running server.
///
/// Each failure is one line for the operator.
pub struct Client {
    path: PathBuf,
    reader: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the control socket at `path`.
    pub fn connect(path: &Path) -> Result<Client, String> {
        let stream = UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        let name = path.display();
        match stream {
            Ok(stream) => Ok(Client { path: path.to_owned(), reader: BufReader::with_capacity(64 * 1024, stream) }),
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                    Err(format!("no server answers at {name} ({error}); start it, or name its control socket with --control"))
                }
                ErrorKind::PermissionDenied => Err(format!(
                    "control socket {name}: {error}: run this as the server's user, or as a member of the group that [control] group names"
                )),
                _ => Err(format!("control socket {name}: {error}")),
            },
        }
    }

    pub fn version(&mut self) -> Result<String, String> {
        self.call("version", json!({})).and_then(result)
    }

    pub fn stats(&mut self, prefix: &str) -> Result<Vec<Sample>, String> {
        let params = json!({ "prefix": prefix });
        self.call("stats", params).and_then(result)
    }

    pub fn connections(&mut self) -> Result<Vec<ConnectionEntry>, String> {
        self.call("connections", json!({})).and_then(result)
    }

    pub fn trunks(&mut self) -> Result<Vec<TrunkEntry>, String> {
        self.call("trunks", json!({})).and_then(result)
    }

    pub fn health(&mut self) -> Result<HealthReport, String> {
        self.call("health", json!({})).and_then(result)
    }

    pub fn targets(&mut self) -> Result<Targets, String> {
        self.call("targets", json!({})).and_then(result)
    }

    /// Returns what has changed.
    pub fn reload(&mut self) -> Result<String, String> {
        self.call("reload", json!({})).and_then(result)
    }

    /// `deadline`: seconds.
    pub fn restart(&mut self, deadline: Option<u32>) -> Result<Restarted, String> {
        let set = self.reader.get_ref().set_read_timeout(Some(RESTART));
        set.map_err(|error| self.explain(&error))?;
        let sent = self.ask("restart", json!({ "deadline": deadline }));
        self.answer(&sent, RESTART).and_then(result)
    }

    /// `deadline`: seconds. `calls`: also wait until no call is in progress.
    pub fn drain(&mut self, deadline: Option<u32>, calls: bool) -> Result<Draining, String> {
        // An earlier server knows no "calls".
        let params = match calls {
            true => json!({ "deadline": deadline, "calls": calls }),
            false => json!({ "deadline": deadline }),
        };
        self.call("drain", params).and_then(result)
    }

    /// Returns the level then in force.
    pub fn log(&mut self, level: Option<&str>) -> Result<String, String> {
        let params = json!({ "level": level });
        self.call("log", params).and_then(result)
    }

    pub fn ul_show(&mut self, aor: Option<&str>) -> Result<Vec<AorEntry>, String> {
        let params = json!({ "aor": aor });
        self.call("ul.show", params).and_then(result)
    }

    /// Returns for how many seconds it is bound.
    pub fn ul_add(&mut self, binding: &NewBinding) -> Result<u32, String> {
        self.call("ul.add", json!(binding)).and_then(result)
    }

    /// Returns how many bindings were removed.
    pub fn ul_rm(&mut self, aor: &str, contact: Option<&str>) -> Result<usize, String> {
        let params = json!({ "aor": aor, "contact": contact });
        self.call("ul.rm", params).and_then(result)
    }

    /// Follows calls: `on` gets each event until the trace ends, or until it returns false, in which case there is no result.
    pub fn trace(&mut self, query: &TraceQuery, mut on: impl FnMut(TraceEvent) -> bool) -> Result<Option<Traced>, String> {
        // Nothing arrives while there are no calls.
        let patience = query.time().saturating_add(PATIENCE);
        let set = self.reader.get_ref().set_read_timeout(Some(patience));
        set.map_err(|error| self.explain(&error))?;
        let sent = self.ask("trace", json!(query));
        loop {
            let line = self.read_line(&sent, patience)?;
            let Response::<Traced> { result, error, params, .. } =
                serde_json::from_slice(&line).map_err(|error| self.explain(&error))?;
            match (error, params) {
                (Some(error), _) => return Err(error.message),
                (None, Some(event)) => {
                    if !on(event) {
                        return Ok(None);
                    }
                }
                (None, None) => return Ok(result),
            }
        }
    }

    /// Returns the result of `method`; `None` if it is null.
    fn call<T: DeserializeOwned>(&mut self, method: &str, params: Value) -> Result<Option<T>, String> {
        let sent = self.ask(method, params);
        self.answer(&sent, PATIENCE)
    }

    fn answer<T: DeserializeOwned>(&mut self, sent: &io::Result<()>, patience: Duration) -> Result<Option<T>, String> {
        let line = self.read_line(sent, patience)?;
        let response: Response<T> = serde_json::from_slice(&line).map_err(|error| self.explain(&error))?;
        match response.error {
            Some(error) => Err(error.message),
            None => Ok(response.result),
        }
    }

    /// A server that has no place for us says so and closes without reading: its answer is read in any case.
    fn ask(&mut self, method: &str, params: Value) -> io::Result<()> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        self.reader.get_mut().write_all(format!("{request}\n").as_bytes())
    }

    /// Reads a whole line. `sent`: the result of sending the request.
    fn read_line(&mut self, sent: &io::Result<()>, patience: Duration) -> Result<Vec<u8>, String> {
        let mut line = Vec::new();
        let received = self.reader.read_until(b'\n', &mut line);
        if line.last() == Some(&b'\n') {
            return Ok(line);
        }
        Err(match (sent, received) {
            (Err(error), _) => self.explain(error),
            (_, Err(error)) if error.kind() == ErrorKind::WouldBlock => {
                self.explain(&format!("no answer within {} s", patience.as_secs()))
            }
            (_, Err(error)) => self.explain(&error),
            _ => self.explain(&"the server closed it before it answered"),
        })
    }

    fn explain(&self, error: &dyn std::fmt::Display) -> String {
        format!("control socket {}: {error}", self.path.display())
    }
}

fn result<T>(result: Option<T>) -> Result<T, String> {
    result.ok_or_else(|| "the server's answer has no result".to_owned())
}

#[derive(Deserialize)]
struct Response<T> {
    result: Option<T>,
    error: Option<Error>,
    /// Of a notification.
    params: Option<TraceEvent>,
}

#[derive(Deserialize)]
struct Error {
    message: String,
}
