//! The real `tuning/forebay-tune`, run by the shells that operators have.

use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Where the script lies.
pub(crate) fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/forebay-tune")
}

/// A shell together with the programs that the script finds.
pub(crate) struct Shell {
    name: &'static str,
    /// In place of the machine's programs; kept until the end.
    programs: Option<TempDir>,
}

/// The machine's `sh`, and, where it is there, BusyBox with nothing but its own awk, sed,
/// sort and so on.
pub(crate) fn shells() -> Vec<Shell> {
    let mut shells = vec![Shell::of_the_machine()];
    match busybox() {
        Some(programs) => shells.push(Shell { name: "busybox", programs: Some(programs) }),
        None => eprintln!("skipped: there is no busybox to run the script with"),
    }
    shells
}

fn busybox() -> Option<TempDir> {
    let path = std::env::var_os("PATH")?;
    let busybox = std::env::split_paths(&path)
        .chain([PathBuf::from("/bin")])
        .map(|directory| directory.join("busybox"))
        .find(|file| file.exists())?;
    let listed = Command::new(&busybox).arg("--list").output().ok()?;
    let programs = tempfile::tempdir().expect("directory");
    for applet in String::from_utf8_lossy(&listed.stdout).lines() {
        symlink(&busybox, programs.path().join(applet)).expect("link");
    }
    Some(programs)
}

impl Shell {
    /// `sh`, with the machine's programs.
    pub(crate) fn of_the_machine() -> Self {
        Self { name: "sh", programs: None }
    }

    /// A command that runs the script with `arguments`.
    pub(crate) fn command<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = match &self.programs {
            None => Command::new("sh"),
            Some(programs) => {
                let mut command = Command::new(programs.path().join("sh"));
                command.env("PATH", programs.path());
                command
            }
        };
        command.arg(script()).args(arguments).env_remove("FOREBAY_TUNE_ROOT");
        // So that a test can end it together with what it has started.
        command.process_group(0);
        command
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }
}

/// How the script ended, and what it said.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) errors: String,
}

impl Ended {
    /// Runs the command to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().expect("the shell starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Self { code: status.code(), output: text(stdout), errors: text(stderr) }
    }

    /// Fails the test unless it ended with `code`; nothing may be on standard error unless
    /// the code says that it was used wrongly.
    #[track_caller]
    pub(crate) fn with_code(self, code: i32) -> Self {
        let Self { code: ended, output, errors } = &self;
        assert_eq!(*ended, Some(code), "{output}{errors}");
        assert_eq!(errors.is_empty(), code != 2, "{output}{errors}");
        self
    }

    /// The rows of `check --format tsv`.
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.output.lines().skip(1).map(Row::from).collect()
    }

    /// The row of a setting.
    #[track_caller]
    pub(crate) fn row(&self, setting: &str) -> Row {
        let row = self.rows().into_iter().find(|row| row.setting == setting);
        row.unwrap_or_else(|| panic!("no row {setting:?} in:\n{}", self.output))
    }
}

/// A line of the table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) status: String,
    pub(crate) setting: String,
    pub(crate) current: String,
    pub(crate) recommended: String,
    /// Why, who says so, what it may harm.
    pub(crate) reasons: [String; 3],
}

impl From<&str> for Row {
    fn from(line: &str) -> Self {
        let fields: Vec<String> = line.split('\t').map(str::to_owned).collect();
        let [status, _group, _topic, setting, current, recommended, why, source, risk] =
            <[String; 9]>::try_from(fields).unwrap_or_else(|_| panic!("nine fields: {line:?}"));
        Self { status, setting, current, recommended, reasons: [why, source, risk] }
    }
}
