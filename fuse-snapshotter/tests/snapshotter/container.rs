//! Containers that run until they are ended.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::node::{Node, SOCI};

/// A running container. Dropping it ends it and removes it with its snapshot.
pub(crate) struct Container<'n> {
    node: &'n Node,
    namespace: String,
    name: String,
    client: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl<'n> Container<'n> {
    /// Runs an image's own program.
    pub(crate) fn run(node: &'n Node, namespace: &str, reference: &str) -> Self {
        Self::with(node, namespace, reference, &[], &[])
    }

    /// Runs a program with more arguments of `ctr run`.
    pub(crate) fn with(
        node: &'n Node,
        namespace: &str,
        reference: &str,
        options: &[&str],
        program: &[&str],
    ) -> Self {
        let name = node.containerd.container_name();
        let mut client = node.containerd.ctr_command();
        let mut client = client
            .args(["-n", namespace])
            .args(["run", "--rm", "--snapshotter", SOCI, "--runc-root"])
            .arg(node.containerd.runc_root())
            .arg("--fifo-dir")
            .arg(node.daemon.file("fifo"))
            .args(options)
            .args([reference, &name])
            .args(program)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let outputs: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(client.stdout.take().unwrap()), Box::new(client.stderr.take().unwrap())];
        for output in outputs {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                    let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
                }
            });
        }
        Self { node, namespace: namespace.to_owned(), name, client, lines, seen: Vec::new() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Waits for a line that contains a text.
    pub(crate) fn wait_for(&mut self, text: &str, patience: Duration) {
        let end = Instant::now() + patience;
        if self.seen.iter().any(|line| line.contains(text)) {
            return;
        }
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let found = line.contains(text);
                    self.seen.push(line);
                    if found {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {text:?} yet, only:\n{}", self.seen.join("\n")),
                Err(RecvTimeoutError::Disconnected) => panic!("no {text:?}, only:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// The process id of the container's first process.
    pub(crate) fn pid(&self) -> u32 {
        let tasks = self.node.ok(&self.namespace, &["tasks", "list"]);
        let line = tasks.lines().find(|line| line.split_whitespace().next() == Some(&self.name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
            .unwrap_or_else(|| panic!("{tasks}"))
    }

    /// Runs a program in it, which must succeed; returns what it printed.
    pub(crate) fn exec(&self, program: &[&str]) -> String {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let id = format!("exec-{}", COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let fifos = self.node.daemon.file("fifo").display().to_string();
        let arguments = ["tasks", "exec", "--fifo-dir", &fifos, "--exec-id", &id, &self.name];
        self.node.ok(&self.namespace, &[&arguments, program].concat())
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // Without the task the client removes the rest.
        let _ = self.node.ctr(&self.namespace, &["tasks", "kill", "--signal", "SIGKILL", &self.name]);
        let end = Instant::now() + Duration::from_secs(20);
        while matches!(self.client.try_wait(), Ok(None)) {
            if Instant::now() > end {
                let _ = self.client.kill();
                let _ = self.client.wait();
                let _ = self.node.ctr(&self.namespace, &["tasks", "delete", "--force", &self.name]);
                let _ = self.node.ctr(&self.namespace, &["containers", "delete", &self.name]);
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
