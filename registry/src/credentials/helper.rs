//! Credential helpers: programs `docker-credential-<name>` that are asked through standard input
//! (github.com/docker/docker-credential-helpers).

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::provider::{Credential, TOKEN_USER};
use crate::redact;

/// No helper has this much to say.
const MAX_OUTPUT: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks the helper `name` for `server`. `None` if it says that it has no credentials. The error is one bounded line
/// that says which helper failed, and how; what the helper wrote is in it, its answer is not.
pub(super) async fn get(name: &str, server: &str, limit: Duration) -> Result<Option<Credential>, String> {
    let program = format!("docker-credential-{name}");
    let failed = |what: String| redact::message(&format!("credential helper `{program}` {what}"));
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err(failed(
            "does not have the name of a helper; correct the Docker configuration".to_owned(),
        ));
    }
    let answered = tokio::time::timeout(limit, run(&program, server)).await;
    let output = match answered {
        Err(_) => return Err(failed(format!("gave no answer within {} s", limit.as_secs_f32()))),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(failed(
                "is not installed, or not in PATH; install it or correct the Docker configuration".into(),
            ));
        }
        Ok(Err(error)) => return Err(failed(format!("cannot be run: {error}"))),
        Ok(Ok(output)) => output,
    };
    if !output.success {
        // Helpers report to standard output by convention; both are looked at.
        let said = format!("{} {}", output.stdout_text(), output.stderr);
        let said = redact::message(&said);
        if said.to_ascii_lowercase().contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed(format!("failed: {said}")));
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|_| failed("gave an answer that is not the JSON of a login".to_owned()))?;
    Ok(match (answer.username.as_str(), answer.secret) {
        ("", secret) if secret.is_empty() => None,
        (TOKEN_USER | "", secret) => Some(Credential::IdentityToken(secret)),
        (username, secret) => Some(Credential::password(username, secret)),
    })
}

struct Output {
    success: bool,
    stdout: Vec<u8>,
    stderr: String,
}

impl Output {
    fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

async fn run(program: &str, server: &str) -> std::io::Result<Output> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // When the time is over the future is dropped, and the helper must not stay behind.
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper may answer without reading its input; then the pipe breaks, which is no failure.
        match stdin.write_all(format!("{server}\n").as_bytes()).await {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = tokio::try_join!(collect(stdout), collect(stderr))?;
    let status = child.wait().await?;
    Ok(Output { success: status.success(), stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() })
}

async fn collect(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MAX_OUTPUT).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}
