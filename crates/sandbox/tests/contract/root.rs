//! The system that every provider gets as its base: a shell and what the suite asks of one, copied from this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What the suite's shell lines use, and git, which every session uses.
const PROGRAMS: &str = "sh bash awk basename cat chmod chown cp cut date diff dirname env false find git grep head \
                        id ln ls mkdir mkfifo mktemp mount mv perl printf rm rmdir sed seq setsid sha256sum sleep \
                        sort stat stty tail timeout touch tar tr true tty unshare wc";

/// Copies the programs with the libraries that they name, and the part of Perl that Debian calls essential.
const MAKE: &str = r#"
root=$1; shift
mkdir -p "$root"/{usr/{bin,lib,lib64},proc,dev,sys,tmp,etc,root,workspace}
for link in bin lib lib64; do ln -s "usr/$link" "$root/$link"; done
chmod 1777 "$root/tmp"
echo 'root:x:0:0:root:/root:/bin/bash' >"$root/etc/passwd"
for program in "$@"; do
    file=$(type -P "$program")
    cp -L "$file" "$root/usr/bin/"
    ldd "$file" | grep -o '/[^ )]*'
done | sort -u | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
perl -e 'print "$_\n" for grep { m{/perl-base$} } @INC' | while read -r folder; do
    mkdir -p "$root$folder"
    cp -a "$folder/." "$root$folder/"
done
"#;

/// The folder of the system; made once, and kept for the next run of the suite.
pub fn root() -> PathBuf {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("contract-root-3");
        if !target.is_dir() {
            let half = target.with_extension(std::process::id().to_string());
            let mut make = Command::new("bash");
            make.args(["-euo", "pipefail", "-c", MAKE, "make"]).arg(&half).args(PROGRAMS.split_whitespace());
            let made = make.output().unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            // Another program of tests may have been faster: its folder is as good.
            std::fs::rename(&half, &target).or_else(|_| std::fs::remove_dir_all(&half)).unwrap();
        }
        target
    })
    .clone()
}
