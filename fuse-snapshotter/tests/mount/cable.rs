//! A network that can be cut: a namespace of its own for the program under test, one cable away from the registry.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use testdata::need::{Need, available};
use testdata::registry::TestRegistry;

/// A cable between this namespace and another. Dropping it removes both of its ends and the other namespace.
pub(crate) struct Cable {
    name: String,
    /// Where the registry is, seen from the other end.
    host: String,
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Cable {
    /// Lays a cable to a registry; `None`, with a word about it, where that is not possible.
    pub(crate) fn to(registry: &TestRegistry) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let needs =
            [Need::Root, Need::Fuse, Need::Program("ip", "iproute2"), Need::Program("nsenter", "util-linux")];
        if !available(&needs) {
            return None;
        }
        let (process, number) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let name = format!("soci{process}-{number}");
        // Four addresses each, of those that are set aside for tests of networks.
        let base = (process * 8 + number) % (1 << 15) * 4;
        let address = |last: u32| {
            let [_, b, c, d] = (base + last).to_be_bytes();
            format!("198.{}.{c}.{d}", 18 + b)
        };
        let (near, far) = (format!("sn{process}-{number}"), format!("sf{process}-{number}"));
        let mut cable = Self { name, host: String::new() };
        ip(&["netns", "add", &cable.name]);
        ip(&["link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &cable.name]);
        ip(&["address", "add", &format!("{}/30", address(1)), "dev", &near]);
        ip(&["link", "set", &near, "up"]);
        ip(&["-n", &cable.name, "address", "add", &format!("{}/30", address(2)), "dev", &far]);
        ip(&["-n", &cable.name, "link", "set", &far, "up"]);
        let listener = TcpListener::bind((address(1), 0)).unwrap();
        cable.host = listener.local_addr().unwrap().to_string();
        let registry = registry.addr();
        // Ends with the process.
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(registry) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || forward(from, to));
                }
            }
        });
        Some(cable)
    }

    /// `ADDRESS:PORT` of the registry, seen from the other end.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// A program at the other end.
    pub(crate) fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        command
    }

    /// Cuts it: what is sent from now on is lost, both ways, and nobody is told.
    pub(crate) fn cut(&self) {
        self.set("down");
    }

    /// Mends it.
    pub(crate) fn mend(&self) {
        self.set("up");
    }

    fn set(&self, state: &str) {
        ip(&["link", "set", &self.name.replacen("soci", "sn", 1), state]);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // Both ends go with one of them.
        let near = self.name.replacen("soci", "sn", 1);
        let _ = Command::new("ip").args(["link", "delete", &near]).output();
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        match from.read(&mut buffer)? {
            0 => return to.shutdown(Shutdown::Write),
            length => to.write_all(&buffer[..length])?,
        }
    }
}
