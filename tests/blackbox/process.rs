//! Children of a test: started with their output in files, never left behind, never waited for without end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::place::{Place, wait_for};

pub struct Process {
    child: Child,
    name: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// What a command that has ended left.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Process {
    /// Starts `command`; its output goes to `NAME.out` and `NAME.err` in the test's folder, which is also its working directory.
    ///
    /// `setpriv` ties the child's life to ours: were the tests killed, nothing would stay behind on the machine.
    pub fn start(place: &Place, name: &str, program: &Path, arguments: &[String], environment: &[(&str, &str)]) -> Process {
        let stdin = Stdio::null();
        Process::spawn(place, name, program, arguments, environment, stdin)
    }

    /// The same for a program that is told on its standard input what to do.
    pub fn converse(place: &Place, name: &str, program: &Path, arguments: &[String]) -> (Process, ChildStdin) {
        let stdin = Stdio::piped();
        let mut process = Process::spawn(place, name, program, arguments, &[], stdin);
        let input = process.child.stdin.take().expect("a standard input");
        (process, input)
    }

    fn spawn(
        place: &Place,
        name: &str,
        program: &Path,
        arguments: &[String],
        environment: &[(&str, &str)],
        stdin: Stdio,
    ) -> Process {
        let stdout = place.path(&format!("{name}.out"));
        let stderr = place.path(&format!("{name}.err"));
        // A suite that was started in the background has SIGINT ignored, and hands that on; here Ctrl-C is to work as at a terminal.
        let child = Command::new("env")
            .args(["--default-signal=INT", "setpriv", "--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(place.directory())
            .stdin(stdin)
            .stdout(File::create(&stdout).expect("a file for the output"))
            .stderr(File::create(&stderr).expect("a file for the errors"))
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        Process { child, name: name.to_owned(), stdout, stderr }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the state of a child")
    }

    /// Sends a signal, e.g. `TERM`. The shell's own `kill` is on every machine; a program of that name is not.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "kill", signal]).arg(self.id().to_string()).status();
        assert!(status.is_ok_and(|status| status.success()), "{} cannot be signalled", self.name);
    }

    /// Waits for the end. A child that does not end within the time fails the test.
    pub fn finish(mut self, within: Duration) -> Outcome {
        let status = wait_for(within, || self.exited());
        let outcome = Outcome { code: status.and_then(|status| status.code()), stdout: self.stdout(), stderr: self.stderr() };
        assert!(status.is_some(), "{} has not ended after {within:?}: {outcome:#?}", self.name);
        outcome
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let stderr = self.stderr();
            if !stderr.trim().is_empty() {
                eprintln!("{} wrote on standard error:\n{}", self.name, tail(&stderr, 40));
            }
        }
    }
}

/// Runs `program` to its end.
pub fn run(place: &Place, name: &str, program: &Path, arguments: &[&str], within: Duration) -> Outcome {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    Process::start(place, name, program, &arguments, &[]).finish(within)
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
