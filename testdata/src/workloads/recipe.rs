//! What the images are made of. The text of this file is part of the cache's key: whoever changes it gets new images.

/// One layer: what a shell does inside the image so far. `$NAME` is the image's name, `$PACKAGES` its packages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// A name for messages.
    pub(super) name: &'static str,
    /// For `sh -eu`, as root, in the image's root directory.
    pub(super) script: &'static str,
}

/// An image on top of the shared layers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recipe {
    pub(super) name: &'static str,
    /// Debian packages.
    pub(super) packages: &'static str,
    /// What `/entry` holds, after the line for the shell.
    pub(super) entry: &'static str,
    /// What it prints when it is ready.
    pub(super) ready: &'static str,
}

/// The release of Debian.
pub(super) const SUITE: &str = "bookworm";

/// The layers above what debootstrap makes, shared by all images.
pub(super) const SHARED: &[Step] = &[
    Step {
        name: "tools",
        script: r"
            apt-get -q update
            apt-get -q -y --no-install-recommends install attr ca-certificates iputils-ping libcap2-bin openssl
            # The package's own script falls back to setuid where the file system takes no capabilities.
            setcap cap_net_raw+ep /bin/ping
        ",
    },
    Step {
        name: "slim",
        // Whiteouts of files and of whole directories; /usr/share/man is made anew, so it is opaque.
        script: r"
            rm -rf usr/share/locale usr/share/info/* usr/share/doc/*
            rm -rf usr/share/man
            mkdir usr/share/man
            echo 'no manual here' > usr/share/man/README
            rm etc/motd
            ln -s /run/motd.dynamic etc/motd
            # The root directory has attributes too.
            chmod 0751 .
        ",
    },
];

/// The layers of every image above the shared ones.
pub(super) const OWN: &[Step] = &[
    Step {
        name: "packages",
        script: r"
            # shellcheck disable=SC2086
            apt-get -q -y --no-install-recommends install $PACKAGES
        ",
    },
    Step {
        name: "entry",
        script: r#"
            printf '#!/bin/sh\n%s\n' "$ENTRY" > entry
            chmod 755 entry
            mkdir -p srv/lower/kept srv/lower/gone srv/lower/renewed srv/lower/turned srv/lower/shared
            for directory in kept gone renewed turned shared; do
                for number in 1 2 3; do echo "$NAME $directory $number" > "srv/lower/$directory/$number"; done
            done
            echo "a file" > srv/lower/file
            ln -s kept srv/lower/link
            ln srv/lower/shared/1 srv/lower/shared/one
            # Something that does not compress, of several spans.
            openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 00000000000000000000000000000000 \
                -in /dev/zero 2>/dev/null | head -c 9000001 > srv/random || true
        "#,
    },
    Step {
        name: "removals",
        script: r#"
            rm srv/lower/kept/2
            rm -rf srv/lower/gone
            rm -rf usr/share/doc usr/share/bug
            # Removed and made again: nothing of the old shows.
            rm -rf srv/lower/renewed
            mkdir -m 0700 srv/lower/renewed
            echo "$NAME new" > srv/lower/renewed/4
        "#,
    },
    Step {
        name: "replacements",
        script: r"
            # A file becomes a directory, a directory a file, a link a directory, and a directory a link.
            rm srv/lower/file && mkdir srv/lower/file && echo inside > srv/lower/file/inside
            rm -rf srv/lower/turned && echo 'was a directory' > srv/lower/turned
            rm srv/lower/link && mkdir srv/lower/link && echo real > srv/lower/link/real
            rm -rf opt && ln -s srv opt
            # Changed in place, longer and shorter.
            echo more >> srv/lower/kept/1
            : > srv/lower/kept/3
        ",
    },
    Step {
        name: "links",
        script: r"
            mkdir srv/links
            # Within the layer, across directories; and to files of lower layers.
            echo linked > srv/links/a
            ln srv/links/a srv/links/b
            ln srv/links/a srv/lower/c
            ln srv/lower/shared/one srv/links/one-again
            ln usr/bin/env srv/links/env
            ln -s b srv/links/relative
            ln -s /srv/links/../links/a srv/links/absolute
            ln -s nowhere srv/links/dangling
            ln srv/links/dangling srv/links/hard-to-dangling
        ",
    },
    Step {
        name: "attributes",
        script: r#"
            mkdir srv/attributes
            cd srv/attributes
            echo x > xattr && setfattr -n user.origin -v "$NAME" xattr && setfattr -n user.empty xattr
            mkdir xattr-directory && setfattr -n user.binary -v 0x00ff0a00 xattr-directory
            cp /bin/true capable && setcap cap_net_bind_service+ep capable
            cp /bin/true setuid && chmod 4755 setuid
            cp /bin/true setgid && chown 0:42 setgid && chmod 2755 setgid
            mkdir -m 2775 setgid-directory && chown 1000:1000 setgid-directory
            mkdir -m 1777 sticky
            mkdir -m 0000 closed && chown 1234:5678 closed
            mknod -m 0666 null c 1 3
            mknod -m 0640 disk b 7 200
            mkfifo -m 0600 pipe && chown 1234:5678 pipe
            echo owned > owned && chown 1234:5678 owned
            echo big > big-owner && chown 4000000:4000001 big-owner
            ln -s target link && chown -h 1234:5678 link
            echo old > old && touch -d '1970-01-01 00:00:01.000000001 UTC' old
            echo fine > fine && touch -d '2021-03-04 05:06:07.123456789 UTC' fine
            echo far > far && touch -d '2100-01-01 00:00:00 UTC' far
            mkdir dated && echo x > dated/x && touch -d '2001-02-03 04:05:06.7 UTC' dated
            touch empty
            truncate -s 1000000 holes && printf x >> holes
        "#,
    },
    Step {
        name: "names",
        script: r#"
            mkdir srv/names
            cd srv/names
            touch -- ' leading' 'trailing ' 'two  blanks' 'tab	tab' 'quote"' "apostrophe'" 'back\slash' 'star*' '$dollar' '-dash' '#hash' \
                'new
line' '...' 'ümlaut' '日本' 'colon:comma,' 'equals=' '%41' '.wh' 'wh.x'
            touch "$(printf 'raw\377byte')" "$(printf '\001control')"
            long=$(printf '%0255d' 0)
            touch "$long"
            ln -s "$long/$long/$long/$long" long-link
            deep=d/$(printf '%0200d' 1)/$(printf '%0200d' 2)/$(printf '%0200d' 3)
            mkdir -p "$deep" && echo deep > "$deep/file" && ln "$deep/file" deep-link
            mkdir many && for number in $(seq 3000); do echo "$number" > "many/$number"; done
        "#,
    },
    Step {
        name: "last",
        script: r#"
            # What the layers above each other made is taken apart once more.
            rm srv/links/b
            rm -rf srv/lower/file srv/names/many/1*
            rm -rf srv/names/d && mkdir srv/names/d
            mkdir -p srv/lower/gone && echo back > srv/lower/gone/back
            chmod 0700 srv/lower/kept
            echo "$NAME" > etc/workload
        "#,
    },
];

/// What must not be there in the end, though a layer has it.
pub(super) const GONE: &[&str] = &[
    "srv/lower/kept/2",
    "srv/lower/gone/1",
    "srv/lower/renewed/1",
    "srv/lower/turned/1",
    "srv/lower/file",
    "srv/links/b",
    "srv/names/many/1",
    "srv/names/many/1999",
    "srv/names/d/0",
    "usr/share/doc",
    "usr/share/man/man1/ls.1.gz",
];

pub(super) const RECIPES: &[Recipe] = &[
    Recipe {
        name: "python",
        packages: "python3",
        entry: r#"exec python3 -c "import json, ssl, sqlite3; print('imported', sqlite3.connect(':memory:').execute('select 6*7').fetchone()[0], flush=True)""#,
        ready: "imported 42",
    },
    Recipe {
        name: "nodejs",
        packages: "nodejs",
        entry: r#"exec node -e "require('http').createServer((q, r) => r.end('x')).listen(8080, '127.0.0.1', () => console.log('server ready'))""#,
        ready: "server ready",
    },
    Recipe {
        name: "postgresql",
        packages: "postgresql-15",
        entry: "exec setpriv --reuid=postgres --regid=postgres --clear-groups /usr/lib/postgresql/15/bin/postgres \
                -D /var/lib/postgresql/15/main -c config_file=/etc/postgresql/15/main/postgresql.conf -c listen_addresses= \
                -c logging_collector=off -c ssl=off -c unix_socket_directories=/tmp -c external_pid_file= \
                -c dynamic_shared_memory_type=mmap",
        ready: "database system is ready to accept connections",
    },
    Recipe {
        name: "redis",
        packages: "redis-server",
        entry: "exec redis-server --save '' --daemonize no --bind 127.0.0.1 --dir /tmp",
        ready: "Ready to accept connections",
    },
    Recipe {
        name: "nginx",
        packages: "nginx-light",
        // Asked over the loopback device, so that its workers and the served file are part of it.
        entry: r#"nginx -g 'daemon off;' &
exec bash -c 'for try in $(seq 500); do
    if { exec 3<>/dev/tcp/127.0.0.1/80; } 2>/dev/null; then
        printf "GET / HTTP/1.0\r\n\r\n" >&3
        read -r answer <&3
        echo "nginx answers ${answer%?}"
        break
    fi
    sleep 0.02
done
wait
exec sleep infinity'"#,
        ready: "nginx answers HTTP/1.1 200 OK",
    },
];
