#!/usr/bin/env python3
"""distccd.py: the volunteer of a distributed compiler.

    distccd.py --daemon [--allow 192.168.0.0/16]     serve the network, in the background
    distccd.py --no-detach --log-stderr              the same in the foreground, to watch
    distccd.py --inetd                               one job on stdin, from inetd or xinetd

A client (distcc.py, or C distcc with its plain protocol) preprocesses a source file, sends the
command and the text, and gets back the messages, the status and the object. This script is all
that a volunteer needs, besides Python 3.8 and the compilers. It has no configuration file.
--help lists the options. Without --inetd or --daemon a socket on stdin means inetd and a
terminal means daemon; nothing else is guessed.

Who may connect: loopback, private and link-local addresses, unless --allow names others.
Whoever may connect may use this machine's CPU, and through assembler text may read what the
daemon's user can read. So run it as a user who owns nothing, on a network that you trust.

What may run: compilers found on this daemon's PATH under a compiler's name, with options that
are known to generate code or warnings. The command is never run as it came: it is rebuilt from
what was understood, with this daemon's own input and output, and all else is refused with an
answer that says why.

By files (distcc.py asks for that first, where this machine can do it) the command does run as it
came, with the client's files at the client's paths, in a root of its own that has nothing else:
see "Root" below. Its programs must be this machine's own too, unless --foreign-programs is given.

Environment:
    PATH                     where compilers are found; entries that lead to distcc are left out
    TMPDIR                   holds a directory for each job (default /tmp)
    DISTCC_SAVE_TEMPS        1: keep the jobs' directories
    CACHE_DIRECTORY, XDG_CACHE_HOME, HOME   where files of clients are kept, see --cache-dir
    DISTCCD_SILENCE_TIMEOUT  seconds (fractions too) that a peer may be silent, default 60

Exit codes: 0, 101 for a wrong command line, 102 when the port is taken, 107 when a file cannot
be used, 100 for anything else.

The daemon is one process that accepts and forks, and a child for each connection. Children
share nothing but the cache directory, and byte locks on a nameless file, which bound the compilers
at work: the kernel drops a lock when its holder dies, so nothing that a child does can leave the
daemon short.
"""

import argparse
import codecs
import collections
import contextlib
import ctypes
import errno
import fcntl
import functools
import gc
import grp
import io
import ipaddress
import itertools
import marshal
import mmap
import os
import pwd
import re
import resource
import select
import signal
import socket
import socketserver
import stat
import struct
import subprocess
import sys
import syslog
import termios
import time
import zlib
from _blake2 import blake2b             # hashlib would load OpenSSL, which each fork would pay for

NAME = "distccd.py"
VERSION = "1.0"

# -------------------------------------------------------------------------------------------
# Constants: limits and time-outs, in seconds and bytes
# -------------------------------------------------------------------------------------------

SILENCE_TIMEOUT_S = 60.0
LEAST_SILENCE_TIMEOUT_S, MOST_SILENCE_TIMEOUT_S = 0.01, 86400.0
SLOWEST_BYTES_PER_S = 64 * 1024         # a request slower than this runs out of time
SILENCES_PER_REQUEST = 10               # the whole request takes at most so many time-outs more
DRAIN_S = 1.0                           # after an early answer: what the peer still sends is
DRAIN_BYTES = 1024 * 1024               # thrown away, or a reset could overtake the answer
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 30, 10, 3

DEFAULT_MAX_CONNECTIONS = 256
DEFAULT_CACHE_BYTES = 4 * 1024 ** 3
SIZE_UNITS = {"": 1, "K": 1024, "M": 1024 ** 2, "G": 1024 ** 3, "T": 1024 ** 4}
MAKES_ROOM_AFTER = 1 / 12               # of the silence time-out, when all connections are taken
ROW = struct.Struct("=iiQ")             # of what a child tells its parent: group, whether its
                                        # request is whole, bytes of it
SHARE_OF_ONE_ADDRESS = 7                # so many connections for each one that is left to others
BACKLOG = 256
MOST_LINGERING = 64                     # connections turned away whose bytes are still drained
LOOP_S = 0.25                           # how soon the accept loop sees a signal or a dead child
ACCEPT_PAUSE_S = 0.1                    # after accept or fork failed for want of resources

PLACE_POLL_MS = 3                       # the one that waits for a compiler's place looks so often
TURN_POLL_MS = 50                       # the others see at least so often whether it is their turn
COMPILE_POLL_MS = 500                   # a compiler that left its pipes to others is noticed
LOOKS_WITHOUT_PAUSE = 50                # at whether a compiler has ended: some 0.1 ms in all
PROBE_TIMEOUT_S = 10

STOP_GRACE_S = 3.0                      # jobs at work may finish; then they are ended
STOP_KILL_S = 4.0                       # a child that has not gone by now is killed
SMALL_OBJECT_BYTES = 128 * 1024         # smaller ones leave in one piece with their header
LARGE_RESULTS_BYTES = 16 * 1024 * 1024  # more of what a job left in memory keeps its place

# One compiler process. cc1plus with sanitizers stays under 4 GiB but for monsters; a line marker
# that names /dev/zero makes gcc read until this stops it.
COMPILER_MEMORY_BYTES = 4 * 1024 ** 3
COMPILER_FILE_BYTES = 4 * 1024 ** 3
MOST_PROCESSES = 8192                   # of the daemon's user, with all that is not ours
OOM_SCORE = 500                         # of a child and its compilers, from 0 to 1000
LEAST_RECEIVED_BYTES = 1024 ** 3        # of requests at once, unless an option says otherwise
ACCOUNT_BYTES = 256 * 1024              # a request is accounted for each time so much has come
MOST_SOCKET_BYTES = 1024 * 1024
ALL_SOCKETS_BYTES = 32 * MOST_SOCKET_BYTES

DEFAULT_NETWORKS = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
                    "fe80::/10", "fc00::/7")
LOOPBACK_NETWORKS = ("127.0.0.0/8", "::1/128")
DEFAULT_USERS = ("distcc", "distccd", "nobody")
JOB_PREFIX = "distccd_"
SAVED_PREFIX = "distccd-saved_"
STALE_JOB_S = 60                        # a younger directory may not be locked by its job yet


# -------------------------------------------------------------------------------------------
# Errors: Refused, ClientGone, Fatal
# -------------------------------------------------------------------------------------------

class Refused(Exception):
    """This job is not done here; the client is told `code` (an exit code) and the reason."""

    def __init__(self, code, reason):
        """code: 100 to 111; reason: one line of text."""
        super().__init__(reason)
        self.code = code


class ClientGone(Exception):
    """The client hung up: nobody is left to answer."""


class Fatal(Exception):
    """The daemon cannot start or go on; it exits with `code` and says why."""

    def __init__(self, code, reason):
        """code: one of the exit codes below; reason: one line of text."""
        super().__init__(reason)
        self.code = code


# -------------------------------------------------------------------------------------------
# Logging: syslog, a file or stderr; a log that fails never disturbs a job
# printable open_log reopen_log log send_to_syslog place_of
# -------------------------------------------------------------------------------------------

LEVELS = {"debug": syslog.LOG_DEBUG, "info": syslog.LOG_INFO, "notice": syslog.LOG_NOTICE,
          "warning": syslog.LOG_WARNING, "error": syslog.LOG_ERR,
          "critical": syslog.LOG_CRIT}
LONGEST_LOGGED = 400                    # a pipe takes lines of less than 4 KiB whole or not at all


class Log:
    """Where log lines go, and from which level on.

    `fd` is the open file or stderr, or None for syslog; `path` is there for a file only;
    `socket` is there for syslog only."""

    def __init__(self):
        self.fd = self.path = self.socket = None
        self.least = LEVELS["info"]


LOG = Log()


def printable(text, most=LONGEST_LOGGED):
    """Return text (str or bytes) with everything but plain characters escaped, and cut.

    What comes from the wire must not forge a line or move a terminal's cursor."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    escaped = text[:most].encode("unicode_escape").decode("ascii")
    return escaped + ("..." if len(text) > most else "")


# Codecs are modules that are loaded when first used, and the user that root becomes may not be
# able to read them (a Python in /root).
for codec in ("ascii", "latin-1", "unicode_escape", "utf-8"):
    codecs.lookup(codec)


def open_log(options):
    """Open the log that the options ask for. Raises Fatal if the file cannot be opened."""
    LOG.least = LEVELS["debug" if options.verbose else options.log_level]
    if options.log_file:
        LOG.path = os.path.abspath(options.log_file)
        try:
            LOG.fd = open_own_file(LOG.path, os.O_WRONLY | os.O_APPEND, options.account)
        except OSError as error:
            raise Fatal(EXIT_IO_ERROR, "cannot open log file %s: %s"
                        % (printable(LOG.path), error.strerror)) from None
    elif options.log_stderr:
        LOG.fd = open_stderr()
    else:
        LOG.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        LOG.socket.setblocking(False)


def open_stderr():
    """Return a descriptor of stderr that never waits, if the system can make one, else 2."""
    try:
        return os.open("/proc/self/fd/2",
                       os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return 2


def open_own_file(path, flags, account):
    """Return a descriptor of a log or pid file, made if need be. Raises OSError.

    account: the user that root is going to be, as pwd has it, or None. Root follows no path that
    this user can lead elsewhere: it acts as the user. Only where all directories on the way are
    out of the user's reach it opens the file itself, and gives away what it has made."""
    flags |= os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK    # a FIFO without a reader is an error
    try:
        with acting_as(account):
            return os.open(path, flags | os.O_CREAT, 0o644)
    except PermissionError:
        if account is None or can_change_way(path, account):
            raise
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return os.open(path, flags)
    os.fchown(fd, account.pw_uid, account.pw_gid)           # or SIGHUP could not open it again
    return fd


def can_change_way(path, account):
    """Tell whether a user can put something else in a directory's place on the way to a file."""
    last = os.path.dirname(os.path.abspath(path))
    with acting_as(account):
        return any(can_change(way, way in (last, os.path.realpath(last)), account)
                   for top in (last, os.path.realpath(last)) for way in directories_above(top))


def directories_above(path):
    """Return a directory and all above it, as paths."""
    found = [path]
    while os.path.dirname(found[-1]) != found[-1]:
        found.append(os.path.dirname(found[-1]))
    return found


def can_change(directory, is_last, account):
    """Tell whether a user, as whom we act, can put something else in place of an entry. In a
    sticky directory as /tmp he can only make new ones: that matters where the file itself lies."""
    try:
        facts = os.stat(directory)
    except PermissionError:
        return False                    # he cannot even come there
    return facts.st_uid == account.pw_uid or os.access(directory, os.W_OK, effective_ids=True) \
        and (is_last or not facts.st_mode & stat.S_ISVTX)


@contextlib.contextmanager
def acting_as(account):
    """Be another user for a while, as far as files go. account: as pwd has it; None: nobody."""
    if account is None:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    os.setgroups(groups_of(account))
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def groups_of(account):
    """Return the ids of the groups that a user is in besides his own."""
    return [group.gr_gid for group in grp.getgrall() if account.pw_name in group.gr_mem]


def reopen_log():
    """Open the log file again by its name, as after logrotate; the old one stays if that fails."""
    if not LOG.path:
        return
    try:
        fresh = open_own_file(LOG.path, os.O_WRONLY | os.O_APPEND, None)
    except OSError as error:
        log("error", "cannot reopen log file: %s" % error.strerror)
        return
    os.dup2(fresh, LOG.fd, inheritable=False)
    os.close(fresh)


def log(level, text):
    """Write one line; text is str without line ends. Never raises, never waits."""
    if LEVELS[level] > LOG.least:
        return
    if LOG.fd is None:
        send_to_syslog(LEVELS[level], "%s%s" % ("" if level == "info" else level + ": ", text))
        return
    line = "%s distccd[%d] %s: %s\n" % (time.strftime("%Y-%m-%d %H:%M:%S"), os.getpid(),
                                        level, text)
    try:
        ready = select.poll()
        ready.register(LOG.fd, select.POLLOUT)
        if ready.poll(0):               # a pipe that nobody empties must not stop the daemon
            os.write(LOG.fd, line.encode("utf-8", "backslashreplace"))
    except OSError:
        pass                            # a full disk: there is nowhere left to say it


SYSLOG_SOCKETS = ("/dev/log", "/var/run/syslog", "/var/run/log")


def send_to_syslog(priority, text):
    """Send a line to the system's log; what that does not take at once is lost.

    (The C library's syslog() waits until it is read, in a handler of a signal too.)"""
    if LOG.socket is None:
        return
    line = "<%d>%s distccd[%d]: %s" % (syslog.LOG_DAEMON | priority,
                                       time.strftime("%b %e %H:%M:%S"), os.getpid(), text)
    for path in SYSLOG_SOCKETS:
        try:
            LOG.socket.sendto(line.encode("utf-8", "backslashreplace"), path)
            return
        except OSError:
            pass                        # not there, or full


def place_of(error):
    """Return "Name: text at file:line" for an unexpected exception, the innermost place."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "%s:%d" % (os.path.basename(trace.tb_frame.f_code.co_filename), trace.tb_lineno) \
        if trace else "?"
    return "%s: %s at %s" % (type(error).__name__, printable(str(error)), where)


# -------------------------------------------------------------------------------------------
# Options: one parser, also the help
# -------------------------------------------------------------------------------------------

class Parser(argparse.ArgumentParser):
    """An argument parser whose usage errors exit with 101."""

    def error(self, message):
        """Print usage and message, exit 101."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_BAD_ARGUMENTS, "%s: %s\n" % (NAME, message))


def number_from(least, most=None, kind=int):
    """Return a function that reads a number of `kind` from least to most, for argparse."""
    def read(text):
        number = kind(text)
        if not least <= number <= (most if most is not None else number):
            raise argparse.ArgumentTypeError("%s is out of range" % text)
        return number
    return read


def size_in_bytes(text):
    """Return the number of bytes that a number with one of SIZE_UNITS stands for."""
    found = re.fullmatch(r"(\d{1,15})([KMGT]?)", text, re.ASCII)
    if not found:
        raise argparse.ArgumentTypeError("%s is no size" % printable(text))
    return int(found.group(1)) * SIZE_UNITS[found.group(2)]


def network(text):
    """Return the ipaddress network that an address or ADDRESS/BITS stands for."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise argparse.ArgumentTypeError("%s is no address or network" % printable(text)) from None


def count_processors():
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def build_parser():
    """Return the parser of all options."""
    parser = Parser(prog=NAME, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter,
                    description="Compile for distcc clients on the network.",
                    epilog="Exit codes: 101 wrong options, 102 port taken, 107 file errors.")
    parser.add_argument("--version", action="version",
                        version="%s %s\n(protocol %d, default port %d)"
                        % (NAME, VERSION, PROTOCOL_VERSION, DEFAULT_PORT))
    add_mode_options(parser.add_argument_group("how it runs"))
    add_access_options(parser.add_argument_group("who and what is served"))
    add_job_options(parser.add_argument_group("jobs"))
    add_log_options(parser.add_argument_group("log"))
    return parser


def add_mode_options(group):
    """Add the options that decide where the daemon listens and how it runs."""
    mode = group.add_mutually_exclusive_group()
    mode.add_argument("--daemon", action="store_true",
                      help="listen on a port (assumed when stdin is a terminal)")
    mode.add_argument("--inetd", action="store_true",
                      help="serve one job on stdin/stdout (assumed when stdin is a socket)")
    group.add_argument("-p", "--port", type=number_from(0, 65535), default=DEFAULT_PORT,
                       help="TCP port, default %(default)s; 0 picks one, which the log names")
    group.add_argument("--listen", metavar="ADDRESS", help="listen on this address only")
    group.add_argument("--socket", metavar="PATH", help="listen on this UNIX socket instead, for "
                       "this user alone;\nits directory is made if need be, as distcc.py does "
                       "over ssh")
    group.add_argument("--idle-exit", type=number_from(0, None, float), default=0, metavar="S",
                       help="end after so many seconds without a connection (0: never)")
    group.add_argument("-P", "--pid-file", metavar="FILE", help="write the daemon's process id")
    group.add_argument("-N", "--nice", type=number_from(0, 20), default=0, metavar="NICENESS",
                       help="run at this lower priority, 0 to 20")
    group.add_argument("--user", metavar="NAME", help="when started as root, become this user\n"
                       "(default: the first of %s that exists)" % ", ".join(DEFAULT_USERS))
    group.add_argument("--no-detach", action="store_true",
                       help="stay in the foreground, fork for each job")
    group.add_argument("--no-fork", action="store_true",
                       help="stay in the foreground, one job at a time in one process")


def add_access_options(group):
    """Add the options that say whose jobs and which compilers are accepted."""
    group.add_argument("--allow", metavar="CIDR", action="append", type=network,
                       help="serve this address or network and not the private ones\n"
                       "(may be repeated; loopback is always served)")
    group.add_argument("--allow-compiler", metavar="NAME", action="append", default=[],
                       help="run this program too, a name on PATH or a path (may be repeated)")
    group.add_argument("--foreign-programs", action="store_true",
                       help="run clients' own compilers, not only those that this machine has\n"
                       "itself: whoever may connect may then run any program, in a fence")
    group.add_argument("--max-connections", type=number_from(1, 65536), metavar="N",
                       default=DEFAULT_MAX_CONNECTIONS,
                       help="turn clients away beyond this number, default %(default)s;\n"
                       "one address gets at most seven eighths of them")
    group.add_argument("--max-received", type=number_from(1), metavar="MIB", default=0,
                       help="memory for requests, of all clients together\n"
                       "(default: half of this machine's, at least 1024)")


def add_job_options(group):
    """Add the options that bound and shape the compiles."""
    group.add_argument("-j", "--jobs", type=number_from(1, 4096), metavar="N",
                       default=count_processors() + 2,
                       help="compilers at work at once, default CPUs + 2 (%(default)s)")
    group.add_argument("--job-lifetime", type=number_from(0, None, float), default=0,
                       metavar="S", help="end compilers after so many seconds (0: never)")
    group.add_argument("--cache-dir", metavar="DIR",
                       help="keep clients' files here (default $CACHE_DIRECTORY,\n"
                       "/var/cache/distccd.py for root, ~/.cache/distccd.py)")
    group.add_argument("--cache-size", type=size_in_bytes, metavar="SIZE",
                       default=DEFAULT_CACHE_BYTES,
                       help="keep at most so many bytes of them, K M G T may follow (4G)")
    group.add_argument("--no-fifo", action="store_true",
                       help="give the source to the compiler in a file, not through a pipe")


def add_log_options(group):
    """Add the options about the log."""
    where = group.add_mutually_exclusive_group()
    where.add_argument("--log-file", metavar="FILE", help="log here instead of to syslog")
    where.add_argument("--log-stderr", action="store_true",
                       help="log to stderr; implies --no-detach")
    group.add_argument("--log-level", choices=list(LEVELS), default="info", metavar="LEVEL",
                       help="least level: %s" % ", ".join(LEVELS))
    group.add_argument("--verbose", action="store_true", help="the same as --log-level debug")


def read_options(argv):
    """Return the options as a namespace, with `inetd` decided; exits 101 if they are wrong.

    argv: list of str without the program's name."""
    parser = build_parser()
    options = parser.parse_args(argv)
    options.no_detach = options.no_detach or options.log_stderr or options.no_fork
    if not options.inetd and not options.daemon:
        options.inetd = stdin_is_socket()
        options.daemon = not options.inetd and (stdin_is_terminal() or options.no_detach)
    if not options.inetd and not options.daemon:
        parser.error("stdin is neither a socket nor a terminal: say --daemon or --inetd")
    allowed = options.allow or [ipaddress.ip_network(text) for text in DEFAULT_NETWORKS]
    options.networks = allowed + [ipaddress.ip_network(text) for text in LOOPBACK_NETWORKS]
    return options


def stdin_is_socket():
    """Tell whether descriptor 0 is a socket, as a super-server leaves it."""
    try:
        return stat.S_ISSOCK(os.fstat(0).st_mode)
    except OSError:
        return False


def stdin_is_terminal():
    """Tell whether descriptor 0 is a terminal."""
    try:
        return os.isatty(0)
    except OSError:
        return False


def silence_timeout_s():
    """Return how long a peer may be silent, in seconds; the default if the environment says
    nothing that makes sense."""
    try:
        wanted_s = float(os.environ.get("DISTCCD_SILENCE_TIMEOUT", SILENCE_TIMEOUT_S))
    except ValueError:
        return SILENCE_TIMEOUT_S
    sensible = LEAST_SILENCE_TIMEOUT_S <= wanted_s <= MOST_SILENCE_TIMEOUT_S    # nan is not
    return wanted_s if sensible else SILENCE_TIMEOUT_S


# -------------------------------------------------------------------------------------------
# Access: addresses, compilers, arguments and sources that are allowed; pure functions
# address_allowed compiler_name_allowed rebuild_command cut_pieces disarm_source guard_source
# -------------------------------------------------------------------------------------------

# gcc, x86_64-linux-gnu-g++-12, arm-none-eabi-gcc, gcc-3.2-arm, clang14, mingw32-gcc-posix; but
# not gcc-ar or clang-format, and not cc1.
COMPILER_NAME = re.compile(
    r"(?:[\w.]+-)*"
    r"(?:(?:gcc|g\+\+|c\+\+|clang|clang\+\+)(?:-?\d[\w.]*(?:-[\w.]+)*)?|cc(?:-\d[\w.]*)?)"
    r"(?:-posix|-win32)?", re.ASCII)
MOST_NAME_CHARACTERS = 255              # as in most file systems
PLAIN_VALUE = re.compile(r"[\w.+=:,][\w.+=:,-]*", re.ASCII)

# Acts on preprocessing alone: C distcc's client sends it although it is done with that.
DONE_BY_CLIENT = ("-P",)


def address_allowed(address, networks):
    """Tell whether address (str, as from getpeername) lies in one of the ipaddress networks."""
    try:
        peer = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    # ::ffff:8.8.8.8 is 8.8.8.8, whatever is said of ::ffff:0:0/96
    peer = getattr(peer, "ipv4_mapped", None) or peer
    return any(peer in network for network in networks if network.version == peer.version)


def compiler_name_allowed(name, extra):
    """Tell whether `name` (no directory) is a compiler's, or one of `extra`."""
    # The pattern takes time with the square of the length.
    return name in extra or len(name) <= MOST_NAME_CHARACTERS \
        and COMPILER_NAME.fullmatch(name) is not None


# The programs that a compiler starts. No interpreter is among them: what a client sends as text
# finds nothing in a root that would run it.
PART_NAME = re.compile(
    r"(?:[\w.]+-)*(?:cc1|cc1plus|cc1obj|cc1objplus|as|objcopy|lto-wrapper|lto1|collect2"
    r"|ld(?:\.(?:bfd|gold|lld))?)(?:-\d[\d.]*)?", re.ASCII)


def is_listed(path, extra):
    """Tell whether --allow-compiler has added a path (bytes), or any of its name."""
    return not {os.fsdecode(path), os.path.basename(os.fsdecode(path))}.isdisjoint(extra)


def program_allowed(path, extra):
    """Tell whether a path (bytes) is named as a compiler, a part of one, or in `extra`."""
    name = os.path.basename(os.fsdecode(path))
    return is_listed(path, extra) or compiler_name_allowed(name, ()) \
        or len(name) <= MOST_NAME_CHARACTERS and PART_NAME.fullmatch(name) is not None


class Command:
    """What was understood of a client's command line.

    compiler: its first word. action: "-c" or "-S". options: the words that may go to the
    compiler. source: the input's name as the client gave it, for the log. language: the
    preprocessed form, as -x names it. family: what family_of() says of the compiler, None until
    it is asked."""

    def __init__(self, compiler):
        self.compiler = compiler
        self.action = self.source = self.language = self.family = None
        self.options = []
        self.assembler_words = []
        self.arch_given = False


def refuse(reason, word):
    """Raise Refused for a word of the command line."""
    raise Refused(EXIT_BAD_ARGUMENTS, "%s: %s" % (reason, printable(word, 200)))


def rebuild_command(argv):
    """Return the Command that argv (list of str) holds. Raises Refused if any doubt is left.

    Nothing of argv reaches the compiler but words that the option table calls PLAIN, harmless
    words for the assembler, one -c or -S and one language."""
    if not argv or any("\0" in word for word in argv):
        raise Refused(EXIT_BAD_ARGUMENTS, "no command, or a zero byte in it")
    command = Command(argv[0])
    words = iter(argv[1:])
    for word in words:
        if word[:1] != "-" or word == "-":
            read_input(command, word)
        elif word == "-Xpreprocessor":
            continue        # C distcc strips its argument; if it is there it is read as an option
        else:
            read_option(command, word, words)
    return check_command(command)


def read_input(command, word):
    """Take an argument that is no option for the one input."""
    if word[:1] == "@":
        refuse("response files are not read here", word)
    if word == "-":
        refuse("standard input is no source file", word)
    if command.source is not None:
        refuse("a second input file", word)
    command.source = word


def read_option(command, word, words):
    """Read one option into the command; words: iterator over the words that follow."""
    option, argument = long_to_short(word)
    if argument is not None and option not in SEPARATE_ARGUMENT:
        option, argument = option + argument, None
    if argument is None and option in SEPARATE_ARGUMENT:
        argument = next(words, None)
        if argument is None:
            refuse("the argument is missing", word)
    kind, reason = classify_option(option)
    if option in DONE_BY_CLIENT:
        return
    if kind == SPECIAL:
        read_special(command, option, argument)
    elif kind == PLAIN:
        keep_plain(command, option, argument)
    elif kind not in (PREPROCESSOR, LINKER):
        refuse("option not allowed%s" % (" (%s)" % reason if reason else ""), word)


def keep_plain(command, option, argument):
    """Pass a PLAIN option on, with its separate argument (str or None)."""
    if argument is not None:
        if not PLAIN_VALUE.fullmatch(argument):
            refuse("argument not allowed", "%s %s" % (option, argument))
        command.options += join_argument(option, argument)
        return
    command.options.append(option)
    if option[:2] in ("-f", "-m", "-W") and "=" not in option and option not in OPTION_INDEX:
        # Some compiler may have an option of this shape that takes the next word. Then it takes
        # this one, which asks for nothing new, and the roles of all others stay what they are.
        command.options.append(SEPARATOR)


SEPARATOR = "-pipe"
JOINED_FORM = {"-target": "--target=%s", "-b": "-b%s", "-V": "-V%s", "-G": "-G%s"}


def join_argument(option, argument):
    """Return the words for a PLAIN option and its argument: one word, where any compiler reads
    that, for what one takes for an option's argument is another's input file."""
    if option in JOINED_FORM:
        return [JOINED_FORM[option] % argument]
    return [option, argument]


def read_special(command, option, argument):
    """Read an option that decides what the job is; argument: its separate one or None."""
    if option in ("-c", "-S"):
        if command.action not in (None, option):
            refuse("both -c and -S", option)
        command.action = option
    elif option[:2] == "-x":
        read_language(command, argument if argument is not None else option[2:])
    elif option == "-arch":
        if command.arch_given:
            refuse("more than one", option)
        command.arch_given = True
        keep_plain(command, option, argument)
    elif option == "-Xassembler":
        # In one word, so that no compiler and no assembler reads it in another role.
        if not argument or "," in argument:
            refuse("assembler option not allowed", argument)
        command.assembler_words.append(argument)
        command.options.append("-Wa," + argument)
    elif option.startswith("-Wa,"):
        command.assembler_words += option[4:].split(",")
        command.options.append(option)
    elif option in ("-M", "-MM") or option[:2] not in ("-o", "-M") and option[:4] != "-Wp,":
        refuse("option not allowed", option)


def read_language(command, language):
    """Read the argument of -x: the form that it has when preprocessed, or Refused."""
    language = PREPROCESSED_FORM.get(language, language)
    if language not in PREPROCESSED_LANGUAGES:
        refuse("language not compiled here", language)
    if command.source is not None or command.language not in (None, language):
        refuse("-x more than once, or after the input", language)
    command.language = language


def check_command(command):
    """Return the command when it is one compile of one source. Raises Refused."""
    if command.action is None:
        raise Refused(EXIT_BAD_ARGUMENTS, "neither -c nor -S")
    if command.source is None:
        raise Refused(EXIT_BAD_ARGUMENTS, "no input file")
    # Over all of them at once: -Wa,--defsym -Wa,/etc/passwd=1 are two words of one command.
    if not assembler_words_harmless(command.assembler_words):
        refuse("assembler options not allowed", " ".join(command.assembler_words))
    if command.language is None:
        language = language_of(command.source, command.compiler)
        command.language = PREPROCESSED_FORM.get(language, language)
        if command.language not in PREPROCESSED_LANGUAGES:
            refuse("not a source file that is compiled here", command.source)
    return command


# clang obeys directives in text that is said to be preprocessed: #include there would read this
# machine's files. The patterns below match what any
# compiler might take for such a directive, and more: blanks (clang's Unicode ones too, so all
# that is not ASCII, and all that is written \u2003 or \N{EM SPACE}), digraphs, trigraphs, spliced
# lines; a lone CR ends a line.
BLANK = rb"[ \t\f\v\0\x80-\xff]"
SPLICE = rb"(?:(?:\\|\?\?/)" + BLANK + rb"*(?:\r\n?|\n))"
SPLICED = re.compile(SPLICE + rb"\Z")
BLANK_BYTES = b" \t\f\v\0" + bytes(range(0x80, 0x100))
ESCAPED = rb"(?:(?:\\|\?\?/)" + SPLICE + rb"*[uUN]" + SPLICE + rb"*(?:\{(?:" + SPLICE \
    + rb"|[^}\r\n]){0,80}\}|(?:" + SPLICE + rb"*[0-9a-fA-F]){0,8}))"
ESCAPED_BEFORE = re.compile(ESCAPED + rb"\Z")
ESCAPED_LAST_BYTES = b"0123456789abcdefABCDEF}uUN"


def spliced(word):
    """Return a pattern for word (bytes) with line splices between any of its bytes."""
    return (SPLICE + b"*").join(re.escape(word[at:at + 1]) for at in range(len(word)))


# One pattern for each spelling of #: with a first byte in common they would be 8 times slower.
# #define and #undef, the most frequent ones, are told by their first letter.
FILE_WORDS = b"|".join(map(spliced, (b"include", b"import", b"embed", b"/*", b"//")))
FILE_DIRECTIVES = [re.compile(
    hash_sign + rb"(?![du])" + BLANK + rb"*(?:(?:" + SPLICE + b"|" + ESCAPED + b")" + BLANK
    + rb"*)*(?:" + FILE_WORDS + rb")")
    for hash_sign in (rb"#", spliced(b"%:"), rb"\?\?=")]
PRECOMPILED_PRAGMA = re.compile(spliced(b"pch_preprocess"))
BEGINNING_BYTES = 64 * 1024             # gcc writes that pragma before all code
RAW_STRING = re.compile(rb'R"[^ ()\\\t\v\f\n"]{0,16}\(')
RAW_STRING_BYTES = 19

# Whatever a source consists of, looking through it takes time in proportion to its length, and
# after each piece the client is looked after. A directive may go on over spliced lines, but not
# over LINE_CUT: a piece ends there.
PIECE_BYTES = 1024 * 1024
MOST_PIECE_BYTES = 16 * PIECE_BYTES
LINE_CUT = re.compile(rb"[^\\/\s\0\x80-\xff]\n")
MOST_BLANKS = 4096                      # before one directive
MOST_DIRECTIVES = 10000                 # that stand in comments
CHECK_S = 20.0                          # a gigabyte of text takes a fifth of that


def cut_pieces(source):
    """Yield (begin, end) of consecutive pieces of the source. Raises Refused if a line is too
    long for one."""
    begin = 0
    while begin < len(source):
        cut = LINE_CUT.search(source, begin + PIECE_BYTES, begin + MOST_PIECE_BYTES)
        end = cut.end() if cut else len(source)
        if end - begin > MOST_PIECE_BYTES:
            raise Refused(EXIT_BAD_ARGUMENTS, "the source has a line of more than %d bytes"
                          % (MOST_PIECE_BYTES - PIECE_BYTES))
        yield begin, end
        begin = end


def line_before(source, at):
    """Return the offset where the blanks before offset at begin, or None if `at` cannot be the
    start of a line: neither a line's end nor what may be a comment's stands before them.

    Raises Refused if there are very many."""
    least = at - MOST_BLANKS
    while at:
        if at < least:
            raise Refused(EXIT_BAD_ARGUMENTS, "the source has a directive after too many blanks")
        escaped = source[at - 1] in ESCAPED_LAST_BYTES \
            and ESCAPED_BEFORE.search(source[max(0, at - MOST_BLANKS):at])
        if source[at - 1] in BLANK_BYTES:
            at -= 1
        elif source[at - 2:at] == b"\\\n":        # the one splice that all compilers know
            at -= 2
        elif escaped:
            at -= len(escaped.group())
        else:
            break
    starts = not at or source[at - 1] in b"\r\n" \
        or source[at - 1] == 0x2f and source[at - 2:at - 1] in (b"*", b"\r", b"\n")
    return at if starts else None


class SourceReader:
    """Reads a source once from its begin to its end, and tells what it met on the way.

    look: called now and then, to raise what should end the reading."""

    def __init__(self, source, look):
        self.source, self.look = source, look
        self.inside = self.raw_string = False
        self.position = self.raw_position = 0

    def inside_comment(self, at):
        """Tell whether what stands at this offset may stand in a comment; offsets only grow."""
        while True:
            stop = min(at, self.position + PIECE_BYTES)
            border = self.source.find(b"*/" if self.inside else b"/*", self.position, stop)
            if border >= 0:
                self.inside = not self.inside
                self.position = border + 2
                continue
            self.position = max(self.position, stop - 1)
            if stop == at:
                return self.inside
            self.look()

    def after_raw_string(self, at):
        """Tell whether a raw string may have begun before this offset; offsets only grow."""
        while not self.raw_string and self.raw_position < at:
            stop = min(at, self.raw_position + PIECE_BYTES)
            begin = max(0, self.raw_position - RAW_STRING_BYTES)
            self.raw_string = RAW_STRING.search(self.source, begin, stop) is not None
            self.raw_position = stop
            self.look()
        return self.raw_string


def disarm_source(source, directives_obeyed, look):
    """Make sure that no directive in the source makes the compiler read a file.

    source: writable buffer (mmap). What stands in a comment is blanked out there, which no
    object shows; anything else raises Refused. directives_obeyed: see above. look: called now
    and then, to raise what should end this."""
    if PRECOMPILED_PRAGMA.search(source, 0, BEGINNING_BYTES):   # guard_source() stops all others
        raise Refused(EXIT_BAD_ARGUMENTS, "the source loads a precompiled header")
    if not directives_obeyed:
        return
    reader = SourceReader(source, look)
    left = MOST_DIRECTIVES
    for begin, end in cut_pieces(source):
        look()
        for at in sorted(match.start() for pattern in FILE_DIRECTIVES for match in
                         itertools.islice(pattern.finditer(source, begin, end), left + 1)):
            start = line_before(source, at)
            if start is not None:
                left -= 1
                disarm_directive(source, at, start, reader)
            look()
        if left <= 0:
            raise Refused(EXIT_BAD_ARGUMENTS, "the source has too many directives in comments")


def disarm_directive(source, at, start, reader):
    """Blank out a directive at offset `at`, in a line that begins at `start`, or raise Refused.

    Blanking out what only seemed a comment would still let no file be read; but a string would
    change, if it is raw or goes on over a spliced line."""
    if not reader.inside_comment(at) or reader.after_raw_string(at) \
            or start and source[start - 1] == 0x2f \
            or SPLICED.search(source[max(0, start - 400):start]):
        refuse("the source is not preprocessed", bytes(source[at:at + 40]).split(b"\n")[0])
    source[at:at + 1] = b" "


LINE_MARKERS = re.compile(rb'(?:# \d+ "(?:[^"\\\n]|\\[^\n]){0,4096}"[ \d]*\n){0,2}')


def guard_source(source):
    """Return bytes to be compiled before the source, which change no object.

    gcc loads a precompiled header, which is memory of the compiler, where
    `#pragma GCC pch_preprocess "FILE"` is the first token of all, and that may stand behind longer
    comments than are worth a search. So another pragma goes first, behind a copy of the line
    markers that name the main file and the directory."""
    markers = LINE_MARKERS.match(source).group()
    return markers + b"#pragma GCC diagnostic push\n" + (b"" if markers else b'# 1 "<stdin>"\n')


# -------------------------------------------------------------------------------------------
# Processes: a compiler with limits, ended as a group when the client leaves
# clean_path find_compiler family_of confine_process Compile Places
# -------------------------------------------------------------------------------------------

def clean_path(path):
    """Return the directories (list of str) of a PATH that are absolute and not distcc's.

    A directory of links to distcc would hand each job on to other volunteers, and round again."""
    return [entry for entry in path.split(os.pathsep)
            if os.path.isabs(entry) and not any(
                leads_to_distcc(os.path.join(entry, name))
                for name in ("gcc", "cc", "g++", "c++", "clang", "clang++"))]


def leads_to_distcc(path):
    """Tell whether a file is a link to some distcc."""
    return os.path.islink(path) and os.path.basename(os.path.realpath(path)).startswith("distcc")


def find_compiler(name, path, extra):
    """Return the path of the compiler called `name`. Raises Refused (110).

    path: list of directories; extra: names and paths that --allow-compiler added. An absolute
    path is taken as it is or not at all: another gcc would make other objects."""
    directory, base = os.path.split(name)
    if name not in extra and not compiler_name_allowed(base, extra):
        raise Refused(EXIT_COMPILER_MISSING, "not a compiler's name: %s" % printable(name))
    if directory and name not in extra and directory not in path:
        raise Refused(EXIT_COMPILER_MISSING, "not in a directory on the daemon's PATH: %s"
                      % printable(name))
    for entry in [directory] if directory else path:
        found = os.path.join(entry, base)
        if os.access(found, os.X_OK) and os.path.isfile(found) and not leads_to_distcc(found):
            return found
    raise Refused(EXIT_COMPILER_MISSING, "compiler not found on this machine: %s"
                  % printable(name))


def family_of(compiler, environment):
    """Return "clang", "gcc" or "" for a compiler's path: by its name, or else by its --version.

    Links are followed, for Debian's cc is a link to gcc and FreeBSD's to clang."""
    names = os.path.basename(compiler) + " " + os.path.basename(os.path.realpath(compiler))
    if "clang" in names:
        return "clang"
    if ("gcc" in names or "g++" in names) and sys.platform != "darwin":
        return "gcc"
    try:
        text = subprocess.run([compiler, "--version"], env=environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=PROBE_TIMEOUT_S).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "clang" if b"clang" in text else "gcc" if b"Free Software" in text else ""


def lower_limit(name, most):
    """Set a limit of this process to `most`, unless whoever started us has set it lower."""
    limits = [most if limit == resource.RLIM_INFINITY else min(limit, most)
              for limit in resource.getrlimit(name)]
    resource.setrlimit(name, tuple(limits))


def confine_process(jobs):
    """Bound this process and the compilers that inherit it: memory, size of files, number of
    processes, no privileges by setuid programs; and let the kernel end them before others.

    jobs: how many compilers share this machine's memory."""
    for name, most in ((resource.RLIMIT_AS, max(machine_memory() // jobs, COMPILER_MEMORY_BYTES)),
                       (resource.RLIMIT_FSIZE, COMPILER_FILE_BYTES), (resource.RLIMIT_CORE, 0),
                       (resource.RLIMIT_NPROC, MOST_PROCESSES)):
        lower_limit(name, most)
    prctl = load_prctl()
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_DUMPABLE, 1)           # as long as it is not, /proc/self belongs to root
    raise_oom_score()
    prctl(PR_SET_DUMPABLE, 0)           # and while it is, compilers could read its memory


PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38


@functools.lru_cache(maxsize=None)
def load_prctl():
    """Return Linux's prctl as a function of (option, number); elsewhere one that does nothing.

    To be called before the user is changed, who may not reach the library."""
    try:
        import ctypes
        prctl = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return lambda option, number: -1
    numbers = [ctypes.c_ulong(0)] * 3
    return lambda option, number: prctl(option, ctypes.c_ulong(number), *numbers)


def raise_oom_score():
    """Have the kernel, when memory is short, end this process rather than the daemon."""
    try:
        with open("/proc/self/oom_score_adj", "r+", buffering=1) as stream:
            if int(stream.read()) < OOM_SCORE:
                stream.write("%d\n" % OOM_SCORE)
    except (OSError, ValueError):
        pass                            # not Linux, or no /proc


def machine_memory():
    """Return the size of this machine's memory in bytes, 0 if it is not known."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def widen_socket(end, count, jobs):
    """Make room for `count` bytes in the socket to a compiler's stdin, as far as the system lets
    us: the compiler reads all of its source first, and need not be waited for.

    jobs: how many there may be of such sockets."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF,
                   min(count, MOST_SOCKET_BYTES, ALL_SOCKETS_BYTES // jobs))


class Compile:
    """One run of a compiler: its source goes in, its messages come out, its client is watched.

    Its stdin, stdout and stderr are sockets, not pipes: a pipe of a process can be opened as
    /proc/PID/fd/0 by any other of the same user, another job's assembler for one, which could
    so read and spoil what is on its way. No socket can.

    stdin, stdout, stderr: our ends; stdin is None if the compiler is given no source.
    messages: {"stdout": bytearray, "stderr": bytearray}, bounded; what is more is thrown away."""

    def __init__(self, argv, directory, environment, from_stdin, peer):
        """Start the compiler. argv: list of str; from_stdin: whether it is to be given source.

        Raises OSError, Refused (110)."""
        self.peer = peer
        self.source = []
        self.messages = {"stdout": bytearray(), "stderr": bytearray()}
        pairs = [socket.socketpair() for _ in range(3)]
        self.stdin, self.stdout, self.stderr = [ours for ours, _ in pairs]
        if not from_stdin:
            self.stdin.close()          # end of file
            self.stdin = None
        try:
            stdin, stdout, stderr = [theirs for _, theirs in pairs]
            self.process = subprocess.Popen(
                argv, cwd=directory, env=environment, start_new_session=True,
                stdin=stdin, stdout=stdout, stderr=stderr)
        except (FileNotFoundError, PermissionError) as error:
            raise Refused(EXIT_COMPILER_MISSING, "cannot run %s: %s"
                          % (argv[0], error.strerror)) from None
        finally:
            for _, theirs in pairs:
                theirs.close()
        self.ended = False
        self.poller = select.poll()
        self.pipes = {}
        self.watch(self.stdin, select.POLLOUT, self.feed)
        self.watch(self.stdout, select.POLLIN, self.collect)
        self.watch(self.stderr, select.POLLIN, self.collect)

    def watch(self, pipe, event, action):
        """Have action(pipe) called when one of our ends is ready."""
        if pipe is not None:
            os.set_blocking(pipe.fileno(), False)
            self.pipes[pipe.fileno()] = pipe, action
            self.poller.register(pipe.fileno(), event)

    def run(self, source, lifetime_s):
        """Feed the compiler and return its raw wait status once it has ended.

        source: buffers; lifetime_s: 0 for no bound. Raises ClientGone, Refused (too long, or
        the client sent more than a request)."""
        self.source = [memoryview(piece) for piece in source if len(piece)]
        self.poller.register(self.peer.in_fd, select.POLLIN)
        deadline = time.monotonic() + lifetime_s if lifetime_s else None
        while self.pipes:
            wait_ms = COMPILE_POLL_MS
            if deadline is not None:
                wait_ms = min(wait_ms, 1 + 1000 * max(0.0, deadline - time.monotonic()))
            ready = self.poller.poll(wait_ms)
            self.peer.send_life()
            for fd, _ in ready:
                if fd == self.peer.in_fd:
                    self.peer.meet_silence()
                elif fd in self.pipes:
                    pipe, action = self.pipes[fd]
                    action(pipe)
            if deadline is not None and time.monotonic() >= deadline:
                raise Refused(EXIT_DISTCC_FAILED, "compiler ended after %g s (--job-lifetime)"
                              % lifetime_s)
            if not ready and self.process.poll() is not None:
                break                   # it left children that hold its pipes
        return self.await_end(deadline, lifetime_s)

    def await_end(self, deadline, lifetime_s):
        """Return the status of a compiler that closed its pipes, which as a rule ends within
        0.1 ms. No sleep is that short, and a time-out of poll() is a whole millisecond."""
        looks = 0
        while self.process.poll() is None:
            looks += 1
            if looks > LOOKS_WITHOUT_PAUSE:
                time.sleep(min(0.05, 0.0001 * (looks - LOOKS_WITHOUT_PAUSE)))
            self.peer.watch(0)
            if deadline is not None and time.monotonic() >= deadline:
                raise Refused(EXIT_DISTCC_FAILED, "compiler ended after %g s (--job-lifetime)"
                              % lifetime_s)
        self.end()
        status = self.process.returncode
        return status << 8 if status >= 0 else -status

    def feed(self, pipe):
        """Give the compiler some more of its source; a compiler that wants none is no fault."""
        try:
            if self.source:
                written = os.write(pipe.fileno(), self.source[0][:MOST_SOCKET_BYTES])
                self.source[0] = self.source[0][written:]
                if not self.source[0].nbytes:
                    del self.source[0]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            self.source = []
        if not self.source:
            self.close(pipe)

    def collect(self, pipe):
        """Take some more of the compiler's messages."""
        try:
            piece = os.read(pipe.fileno(), CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:        # what a terminal has at its end
                raise
            piece = b""
        kept = self.messages["stdout" if pipe is self.stdout else "stderr"]
        kept += piece[:MAX_MESSAGE_BYTES - len(kept)]
        if not piece:
            self.close(pipe)

    def close(self, pipe):
        """Close a pipe of ours and watch it no more."""
        self.poller.unregister(pipe.fileno())
        del self.pipes[pipe.fileno()]
        pipe.close()

    def end(self):
        """Kill what is left of the compiler's process group, and reap the compiler. Never raises.

        The group is named after the compiler, and the name is free once that is reaped: a group
        without members is no other's, for a process id in use as a group's is not given anew."""
        if self.ended:
            return
        self.ended = True
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except OSError:
            pass                        # as a rule: all gone
        self.process.wait()
        for pipe, _ in list(self.pipes.values()):
            self.close(pipe)


class Places:
    """The compilers' places: `count` byte locks on a nameless file that all children share.

    The invariants:
    - A place is a locked byte. POSIX locks belong to a process and are not inherited: the
      kernel frees a place when its holder dies, however it dies.
    - One more byte is the turn. Only its holder looks for a free place, every few ms; it gives
      up the turn when it has one. The rest look rarely, so a queue costs next to nothing.
    - Who waits watches its client, and gives everything back if that leaves."""

    def __init__(self, count):
        """count: how many compilers may work at once. Raises Fatal if there is no file."""
        self.count = count
        self.held = None
        try:
            self.fd = open_nameless()
        except OSError as error:
            raise Fatal(EXIT_IO_ERROR, "cannot make the lock file in %s: %s"
                        % (temporary_directory(), error.strerror)) from None

    def try_lock(self, index):
        """Lock one byte unless another process has it; tell whether it is ours."""
        try:
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, index)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            return False
        return True

    def unlock(self, index):
        """Give one byte back."""
        fcntl.lockf(self.fd, fcntl.LOCK_UN, 1, index)

    def take(self, peer):
        """Wait for a place, and hold it, unless we have one. Raises ClientGone, Refused (the
        client spoke)."""
        if self.held is not None:
            return
        pause_ms = 1
        while not self.try_lock(self.count):
            peer.watch(pause_ms)
            pause_ms = min(TURN_POLL_MS, 2 * pause_ms)
        try:
            while not self.take_now():
                peer.watch(PLACE_POLL_MS)
        finally:
            self.unlock(self.count)

    def take_now(self):
        """Hold a place if one is free; tell whether it is so."""
        self.held = next(filter(self.try_lock, range(self.count)), None)
        return self.held is not None

    def count_taken(self):
        """Return how many places are held, by us too."""
        taken = 0
        for index in range(self.count):
            if index == self.held or not self.try_lock(index):
                taken += 1
            else:
                self.unlock(index)
        return taken

    def release(self):
        """Give the place back, if one is held."""
        if self.held is not None:
            self.unlock(self.held)
            self.held = None


def open_nameless():
    """Return the descriptor of an empty file without a name. Raises OSError."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("distccd-places")
    path = os.path.join(temporary_directory(), JOB_PREFIX + "places_" + os.urandom(8).hex())
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink(path)
    return fd


# -------------------------------------------------------------------------------------------
# Wire: exit codes, protocol 1 and compiler options, the same text in both scripts
# pack_header read_exactly read_header long_to_short classify_option assembler_words_harmless
# language_of
# -------------------------------------------------------------------------------------------

# The exit codes of the distcc 0.14 manual, section 2.9; 101 and 111 as C distcc has them.
# They lie high, where no compiler's own exit code is.
EXIT_DISTCC_FAILED = 100
EXIT_BAD_ARGUMENTS = 101
EXIT_BIND_FAILED = 102
EXIT_CONNECT_FAILED = 103
EXIT_COMPILER_CRASHED = 104
EXIT_OUT_OF_MEMORY = 105
EXIT_BAD_HOSTSPEC = 106
EXIT_IO_ERROR = 107
EXIT_TRUNCATED = 108
EXIT_PROTOCOL_ERROR = 109
EXIT_COMPILER_MISSING = 110
EXIT_RECURSION = 111
OWN_EXIT_CODES = range(100, 120)            # in a STAT: "not compiled", never a compiler's word

PROTOCOL_VERSION = 1
DEFAULT_PORT = 4200
RECURSION_GUARD = "_DISTCC_SAFEGUARD"       # C distcc reads the same name
RECURSION_LIMIT = 5                         # calls within calls; a daemon's compiler starts here

# What a peer may announce, in bytes; Linux itself bounds an argument to 128 KiB.
HEADER_BYTES = 12
MAX_ARGUMENTS = 16384
MAX_ARGUMENT_BYTES = 128 * 1024
MAX_COMMAND_BYTES = 2 * 1024 * 1024
MAX_SOURCE_BYTES = 1024 * 1024 * 1024
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_OBJECT_BYTES = 0xffffffff
CHUNK_BYTES = 256 * 1024


class WireError(Exception):
    """The peer broke the protocol or hung up; `code` is the exit code that stands for it."""

    def __init__(self, code, reason):
        """code: EXIT_TRUNCATED or EXIT_PROTOCOL_ERROR; reason: one line of text."""
        super().__init__(reason)
        self.code = code


def pack_header(token, number):
    """Return the 12 bytes of a packet header: four of token, eight lower-case hex digits."""
    return b"%s%08x" % (token, number)


def read_exactly(receive, count, wanted):
    """Return exactly `count` bytes taken from receive(most) -> bytes.

    `wanted` names them in the WireError that an early end of file raises."""
    pieces = []
    missing = count
    while missing:
        piece = receive(min(missing, CHUNK_BYTES))
        if not piece:
            raise WireError(EXIT_TRUNCATED, "connection closed after %d of %d bytes of %s"
                            % (count - missing, count, wanted))
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def read_one_of(receive, tokens):
    """Read one packet header that must carry one of `tokens`, {token: greatest number}; return
    (token, number).

    Raises WireError: truncated, another token, digits that are none, a number too large."""
    header = read_exactly(receive, HEADER_BYTES, " or ".join(map(bytes.decode, tokens)))
    token, digits = header[:4], header[4:]
    if token not in tokens or digits.translate(None, b"0123456789abcdefABCDEF"):
        raise WireError(EXIT_PROTOCOL_ERROR, "expected %s and 8 hex digits, got %r"
                        % (" or ".join(map(bytes.decode, tokens)), header))
    number = int(digits, 16)
    if number > tokens[token]:
        raise WireError(EXIT_PROTOCOL_ERROR, "%s announces %d, more than %d"
                        % (token.decode(), number, tokens[token]))
    return token, number


def read_header(receive, token, most):
    """Read one packet header that must carry `token`; return its number, at most `most`.

    Raises WireError as read_one_of does."""
    return read_one_of(receive, {token: most})[1]


# Jobs by files: protocol 64, ours alone. The command travels as it is, and with it a list of all
# files that it may read; packets are as in protocol 1. A request, and what answers it:
#
#   DIST 64 · FLAG bits · ARGC n · n x ARGV · CWDD path · ENVC n · n x ENVV NAME=VALUE · UMSK mask
#       · PAGE entries · LIST references · contents · SENT 0
#   LIFE 0                      at least every five seconds, from the answer's side
#   NEED digests                one after the other, 64 hex digits each: send these too, which the
#                               client answers with contents · SENT 0
#   DONE 64 · STAT wait status · SERR · SOUT · NOTE words · FILC n · n x (NAME path · MODE mode
#       · DATA or ZDAT)         the end; NAME is absolute, MODE 0 (and no data) says: removed
#
# contents: any number of BODY (digest, then the content) and ZBDY (digest, eight hex digits of
#   the content's length, then the content deflated); DATA and ZDAT are the same without digest.
# FLAG: bit 0 asks for ZDAT, bit 1 says that stderr is a terminal. NOTE: NAME=VALUE words, blanks
#   between, about the daemon.
# An entry is two byte strings, each ended by a zero byte: head and absolute path. A head is
#   "d"                                     a directory, with all those above it
#   "s" TARGET                              a symbolic link
#   "f" KIND " " DIGEST " " SIZE " " MTIME " " INODE      a file; MTIME in ns, decimal; SIZE and
#       INODE in hex. KIND: "-" plain; "x" may be executed; "l" a shared library, in whose place
#       the daemon may put its own machine's. Files of one INODE are one file under several names,
#       other files are different ones even where they are equal.
# A page is a content that holds up to 64 entries one after the other (PAGE: those of this job
#   alone, any number). A reference is a line "DIGEST MASK": of the page with that digest the
#   entries whose bits are set in the hex number MASK, the lowest bit for the first.
# A digest is BLAKE2b with 32 bytes, in lower-case hex.
# By text between our own two: DIST 65 · PAGE entries (of the programs) · ARGC and the rest as in
#   protocol 1, answered with DONE 65 and the rest; STAT 110 << 8 if a program there is another.
FILES_VERSION = 64
CHECKED_TEXT_VERSION = 65
PAGE_ENTRIES = 64
DIGEST_DIGITS = 64
FLAG_DEFLATE, FLAG_TERMINAL = 1, 2
MAX_ENTRIES = 65536
MAX_PATH_BYTES = 4096
MAX_PAGE_BYTES = 4 * 1024 * 1024
MAX_LIST_BYTES = 1024 * 1024
MAX_VARIABLES = 1024
MAX_NEED_BYTES = 2 * MAX_ENTRIES * DIGEST_DIGITS
MAX_RESULTS = 4096
MAX_FILE_BYTES = 1024 * 1024 * 1024
MIN_DEFLATED_BYTES = 1024                   # less is sent as it is
LIFE_INTERVAL_S = 5.0                       # who waits for a reply hears from us so often


def digest_of(content):
    """Return the digest of a buffer, 64 hex digits as bytes."""
    from _blake2 import blake2b     # hashlib would cost the client 2.9 ms
    return blake2b(content, digest_size=DIGEST_DIGITS // 2).hexdigest().encode()


# Compiler options. Each word below is an option; one that ends in * stands for all that begin
# so. The longest match decides. The kinds are:
PLAIN = "plain"                  # code generation or warnings: goes to every compiler
PREPROCESSOR = "preprocessor"    # has done its work when the source is preprocessed
LINKER = "linker"                # without meaning for -c and -S, even in gcc's specs
SPECIAL = "special"              # decides what the job is: each side reads it with its own code
ELSEWHERE = "elsewhere"          # reads or writes other files, or depends on where it runs
UNKNOWN = "unknown"
NO_OBJECT = "no object is made from one source"

# Options that take the next word when nothing is joined to them.
SEPARATE_ARGUMENT = frozenset("""
    -o -x -D -U -I -F -A -include -imacros -idirafter -iprefix -iwithprefix -iwithprefixbefore
    -isystem -isysroot --sysroot -iquote -iframework -imultilib -imultiarch -cxx-isystem -c-isystem
    -MF -MT -MQ -MJ -L -l -T -Tbss -Tdata -Ttext -u -z -e -R -h -rpath -Wl -Xlinker
    -Xpreprocessor -Xassembler -Xclang -Xanalyzer -Xopenmp-target -Xarch_host -Xarch_device
    -mllvm -plugin-arg --param -b -V -G -B -aux-info -dumpbase -dumpbase-ext -dumpdir -wrapper
    -specs -target -arch -include-pch -index-store-path -gcc-toolchain -ivfsoverlay -iplugindir
    -serialize-diagnostics --serialize-diagnostics -working-directory -framework -rdynamic-list
    -ccc-gcc-name -ccc-install-dir -dependency-file -fmodule-name -main-file-name -weak_framework
    -bundle_loader -install_name -force_load -dylib_file -current_version
    -compatibility_version -fintrinsic-modules-path -fnew-alignment
    -multiply_defined_unused""".split())

# GNU long options and the short ones that they stand for; a trailing = takes an argument,
# joined or as the next word (gcc documents them only in its option tables).
LONG_OPTIONS = {
    "--all-warnings": "-Wall", "--ansi": "-ansi", "--assemble": "-S", "--comments": "-C",
    "--assert=": "-A", "--comments-in-macros": "-CC", "--compile": "-c", "--coverage": "-coverage",
    "--debug": "-g", "--define-macro=": "-D", "--dependencies": "-M", "--dump=": "-d",
    "--dumpbase=": "-dumpbase", "--dumpbase-ext=": "-dumpbase-ext", "--dumpdir=": "-dumpdir",
    "--entry=": "-e", "--extra-warnings": "-Wextra", "--for-assembler=": "-Xassembler",
    "--for-linker=": "-Xlinker", "--force-link=": "-u", "--imacros=": "-imacros",
    "--include=": "-include", "--include-barrier": "-I-", "--include-directory=": "-I",
    "--include-directory-after=": "-idirafter", "--include-prefix=": "-iprefix",
    "--include-with-prefix=": "-iwithprefix", "--language=": "-x", "--library-directory=": "-L",
    "--include-with-prefix-after=": "-iwithprefix",
    "--include-with-prefix-before=": "-iwithprefixbefore", "--no-line-commands": "-P",
    "--no-standard-includes": "-nostdinc", "--no-standard-libraries": "-nostdlib",
    "--no-warnings": "-w", "--optimize": "-O", "--output=": "-o", "--pedantic": "-pedantic",
    "--pedantic-errors": "-pedantic-errors", "--pipe": "-pipe", "--preprocess": "-E",
    "--prefix=": "-B", "--print-missing-file-dependencies": "-MG", "--profile": "-p",
    "--save-temps": "-save-temps", "--shared": "-shared", "--specs=": "-specs",
    "--static": "-static", "--std=": "-std=", "--trace-includes": "-H",
    "--traditional": "-traditional-cpp", "--traditional-cpp": "-traditional-cpp",
    "--trigraphs": "-trigraphs", "--undefine-macro=": "-U", "--user-dependencies": "-MM",
    "--verbose": "-v", "--write-dependencies": "-MD", "--write-user-dependencies": "-MMD"}

OPTIONS_BY_KIND = {
    SPECIAL: """-c -S -o* -x* -M -MM -MD -MMD -MF* -MT* -MQ* -MP -MG -Wp,* -Wa,* -arch
        -Xpreprocessor -Xassembler""",
    PREPROCESSOR: """-A* -D* -F* -I* -U* -C -CC -cxx-isystem* -c-isystem* -idirafter* -iframework*
        -imacros* -imultiarch* -imultilib* -include* -iprefix* -iquote* -isysroot* -isystem*
        -iwithprefix* -iwithprefixbefore* -nostdinc -nostdinc++ -nostdlibinc -nobuiltininc -remap
        --sysroot* -finput-charset=* -traditional-cpp""",
    LINKER: """-L* -l* -Wl,* -Xlinker -T* -Tbss* -Tdata* -Ttext* -u -z -e* -h -rpath -framework
        -weak_framework -fuse-ld=*""",
    PLAIN: """-s -r -N -n -t -rdynamic -static -static-libgcc -static-libstdc++ -static-pie -shared
        -shared-libgcc -symbolic -pie -no-pie -nopie -nostdlib -nostartfiles -nodefaultlibs
        -nolibc -nostdlib++
        -O* -std=* -ansi -undef -w -W -pedantic -pedantic-errors -pipe -pthread -pthreads -p
    -pg
        --param* -target --target=* -stdlib=* -b -V -G* -trigraphs -Qunused-arguments
        -g -g0 -g1 -g2 -ggdb -ggdb0 -ggdb1 -ggdb2 -gdwarf* -gno-* -gstrict-dwarf -gz*
        -gcolumn-info -gline-tables-only -gmlt -gpubnames -ggnu-pubnames -grecord-gcc-switches
        -g3 -ggdb3 -gstabs* -gctf* -gbtf* -glldb* -frecord-gcc-switches -frecord-command-line
        -grecord-command-line -fdebug-macro -femit-struct-debug-* -fno-emit-struct-debug-*
        -gstatement-frontiers -gvariable-location-views* -ginline-points -gas-loc-support
        -gas-locview-support -ginternal-reset-location-views -gdescribe-dies -gtoggle
        -ffile-prefix-map=* -fdebug-prefix-map=* -fmacro-prefix-map=* -fcoverage-prefix-map=*
        -fdebug-compilation-dir=*
        -fabi-compat-version=* -fabi-version=* -faligned-new=* -falign-functions=* -falign-jumps=*
        -falign-labels=* -falign-loops=* -fasan-shadow-offset=* -fcf-protection=*
        -fclang-abi-compat=*
        -fconstant-string-class=* -fconstexpr-cache-depth=* -fconstexpr-depth=*
        -fconstexpr-loop-limit=* -fconstexpr-ops-limit=* -fconstexpr-steps=* -fdiagnostics-color=*
        -fdiagnostics-column-origin=* -fdiagnostics-column-unit=* -fdiagnostics-escape-format=*
        -fdiagnostics-minimum-margin-width=* -fdiagnostics-path-format=* -fdiagnostics-urls=*
        -fdiagnostics-show-location=* -fexcess-precision=* -fexec-charset=* -ffixed-* -fcall-used-*
        -fcall-saved-* -ffp-contract=* -ffp-exception-behavior=* -ffp-model=* -ffp-eval-method=*
        -fivar-visibility=* -fira-algorithm=* -fira-region=* -flive-patching=*
        -finline-limit=* -flifetime-dse=*
        -ftree-parallelize-loops=* -fsso-struct=* -fira-verbose=* -fmessage-length=*
        -fmax-errors=* -fmax-include-depth=* -fms-compatibility-version=*
        -fmudflap*
        -fname-mangling-version-* -fobjc-abi-version=* -fobjc-runtime=* -fopenmp=*
        -fpack-struct=* -fpatchable-function-entry=* -fpermitted-flt-eval-methods=*
        -fprefetch-loop-arrays* -frandom-seed=* -freorder-blocks-algorithm=* -fsanitize=*
        -fsanitize-recover=* -fsanitize-trap=* -fsanitize-sections=* -fsanitize-coverage=*
        -fno-sanitize=* -fno-sanitize-recover=* -fno-sanitize-trap=*
        -fsched-stalled-insns=* -fsched-stalled-insns-dep=* -fsched-verbose=* -fsimd-cost-model=*
        -fstack-limit-symbol=* -fstack-limit-register=* -fstack-reuse=* -fstack-check=*
        -fstack-clash-protection -fstrict-flex-arrays=* -fstrong-eval-order=* -ftabstop=*
        -ftemplate-backtrace-limit=* -ftemplate-depth=* -ftemplate-depth-* -ftls-model=*
        -ftrivial-auto-var-init=* -fvect-cost-model=* -fvisibility=* -fvtable-verify=*
        -fwide-exec-charset=* -fzero-call-used-regs=* -fzero-init-padding-bits=*""",
}

# The same for ELSEWHERE, by the reason that the user is told.
REASONS_ELSEWHERE = {
    NO_OBJECT: """-E -fsyntax-only -### --help* -print-* --print-*
        -dumpmachine -dumpversion -dumpfullversion -dumpspecs --version --target-help -emit-llvm
        -emit-ast --analyze -analyze -rewrite-objc -combine -verify-pch --precompile -Xarch_*""",
    "it prints about this machine or this run": """-v -H -Q -time -ftime-report* -fmem-report*
        -fpre-ipa-mem-report -fpost-ipa-mem-report -fbacktrace -fstats -report-bug -fdbg-cnt-list
        -mdump-tune-features -freport-bug
        -ftime-report-details -fproc-stat-report* -fstack-usage-report -Rpass* -R*""",
    "it writes another file": """-gsplit-dwarf* -save-stats* --coverage -coverage -ftest-coverage
        -fprofile-arcs -fstack-usage -fcallgraph-info* -fdump-* -d* -save-temps* --save-temps*
        -ftime-trace* -fsave-optimization-record* -foptimization-record-file=* -fopt-info*
        -aux-info* -time=* -fdiagnostics-format=* -dumpdir* -dumpbase* -dumpbase-ext* -MJ*
        --serialize-diagnostics* -serialize-diagnostics* -index-store-path -gen-cdb-fragment-path*
        -fada-spec-parent=* -fdump-go-spec=* -ftree-dump* -dependency-file -module-file-info
        -fcrash-diagnostics-dir=* -fproc-stat-report=* -fsave-main-file-name -gen-reproducer*
        -module-dependency-dir
        -fmultiple-object-format -fdriver-only -dxc-* -fexperimental-*""",
    "it reads another file": """-fprofile-use* -fprofile-generate* -fauto-profile*
        -fprofile-* -fbranch-probabilities -fcs-profile-* -fprofile-instr-use*
        -fprofile-sample-use* -fsanitize-ignorelist=* -fsanitize-blacklist=*
        -fsanitize-system-ignorelist=* -fsanitize-coverage-*list=* -fxray-*  -fprofile-list=*
        -frandomize-layout-seed-file=* -ivfsoverlay* -fembed-offload-object=* -fthinlto-index=*
        -fmodules* -fmodule-* -fno-modules* -fprebuilt-* -fbuild-session* -fpch-* -include-pch
        -fuse-init-array-file -fimplicit-module* -fopenmp-host-ir-file-path* -fapinotes*
        -fvtv-* -fmap-file* -flimited-precision=* -fvfs-* -fcuda-include-gpubinary
        -ftree-profile-file* --config* -fpreprocessed
        -fno-preprocessed -fdirectives-only -fno-directives-only -fbasic-block-sections=*
        -fms-volatile-file
        -fsanitize-coverage-allowlist=* -fsanitize-coverage-ignorelist=* -fcheck-data-deps-file
        -working-directory* -filelist -fdebug-compilation-dir -ftrapv-handler -meabi -mthread-model
        -multiply_defined* -main-file-name -fintrinsic-modules-path* -fnew-alignment""",
    "it runs or loads other programs": """-fplugin* -iplugindir* -fpass-plugin=* -specs* -wrapper
        -B* -no-integrated-cpp -Xclang* -mllvm* -gcc-toolchain* --gcc-toolchain* --gcc-install-dir*
        -load -plugin* -ccc-* -fintegrated-cc1 -fno-integrated-cc1 -foffload* -Xopenmp-target*
        -Xanalyzer -no-canonical-prefixes -resource-dir* -cuda-* --cuda-* --offload* --hip-*
        --rocm-* -fno-integrated-as -no-integrated-as -Xcuda-* -Xoffload-*""",
    "its messages depend on the source itself": """-Werror=misleading-indentation
        -fdiagnostics-generate-patch -fdiagnostics-absolute-paths -fuse-line-directives
        -frewrite-*""",
    "it depends on this machine's processor": "-march=native -mtune=native -mcpu=native",
    "the object would be another": """-flto* -fcompare-debug* -P -traditional -ffat-lto-objects
        -gcodeview* -gembed-source -gmodules -gsce -fembed-bitcode* -fdebug-cpp -fno-debug-cpp
        -fno-working-directory -fcoverage-mapping -fself-test*""",
}


def index_options():
    """Return {word of the tables above: (kind, reason)}. A loop over the words would add 0.1 ms
    to each start."""
    index = {}
    for kind, words in OPTIONS_BY_KIND.items():
        index.update(dict.fromkeys(words.split(), (kind, "")))
    for reason, words in REASONS_ELSEWHERE.items():
        index.update(dict.fromkeys(words.split(), (ELSEWHERE, reason)))
    return index


OPTION_INDEX = index_options()
LONGEST_OPTION = max(map(len, OPTION_INDEX))


def long_to_short(word):
    """Return (short option, joined argument or None) for a GNU long option, else (word, None).

    "--output=a.o" gives ("-o", "a.o"), "--output" gives ("-o", None)."""
    name, equals, argument = word.partition("=")
    if equals:
        short = LONG_OPTIONS.get(name + "=")
        return (short, argument) if short else (word, None)
    return LONG_OPTIONS.get(word) or LONG_OPTIONS.get(word + "=") or word, None


# PLAIN options whose argument is a path, but of which no file is opened.
PATH_OPTIONS = ("-ffile-prefix-map=", "-fdebug-prefix-map=", "-fmacro-prefix-map=",
                "-fcoverage-prefix-map=", "-fdebug-compilation-dir=")


# What a word may consist of that no table holds. No blank, slash, comma or @ is among these: they
# have a meaning to one or another of the programs that a compiler starts.
DECIMAL_DIGITS = frozenset("0123456789")
HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
NAME_CHARACTERS = LETTERS | DECIMAL_DIGITS | frozenset("_.$")
PLAIN_CHARACTERS = LETTERS | DECIMAL_DIGITS | frozenset("-_+.:=")


def names_no_file(word):
    """Tell whether no program takes a PLAIN word, or what it is handed of it, for a file's name.

    The assembler is handed the values of some options as words of their own, and expands one
    that begins with @."""
    if word.startswith(PATH_OPTIONS):
        return word[word.index("=") + 1:][:1] != "@"
    return "/" not in word and "@" not in word


def classify_option(word):
    """Return (kind, reason) of an option word; reason is "" but for ELSEWHERE.

    Words that no table holds are PLAIN in the shapes -fWORD, -mWORD, -mWORD=VALUE and -WWORD
    with nothing but PLAIN_CHARACTERS: both compilers keep them free of files. All else is
    UNKNOWN."""
    found = OPTION_INDEX.get(word)
    length = min(len(word), LONGEST_OPTION)
    while not found and length > 1:
        found = OPTION_INDEX.get(word[:length] + "*")
        length -= 1
    if found:
        return found if found[0] is not PLAIN or names_no_file(word) else (UNKNOWN, "")
    harmless = (word[:2] in ("-m", "-W") or word[:2] == "-f" and "=" not in word) \
        and len(word) > 2 and PLAIN_CHARACTERS.issuperset(word) and word not in SEPARATE_ARGUMENT
    return (PLAIN if harmless else UNKNOWN), ""


HARMLESS_ASSEMBLER_WORDS = frozenset("""
    --32 --64 --x32 --noexecstack --execstack --fatal-warnings --no-warn --warn -W --divide
    --strip-local-absolute --nocompress-debug-sections --compress-debug-sections
    --compress-debug-sections=none --compress-debug-sections=zlib --no-pad-sections
    --compress-debug-sections=zlib-gnu --compress-debug-sections=zlib-gabi --keep-locals -L
    --reduce-memory-overheads --size-check=error --size-check=warning --traditional-format
    --elf-stt-common=yes --elf-stt-common=no --generate-missing-build-notes=no
    --generate-missing-build-notes=yes --sectname-subst -J -R -n -q -s -O -O2 -w -x -X
    -mamd64 -mintel64 -mindex-reg -mnaked-reg -msse2avx -madd-bnd-prefix -mshared -mbig-obj
    -mbranches-within-32B-boundaries -mregnames -mno-regnames -maltivec -mvsx -mthumb
    -mthumb-interwork -mverbose-error -mno-verbose-error -mlittle-endian -mbig-endian
    -mno-warn-deprecated -mwarn-deprecated""".split())


def assembler_words_harmless(words):
    """Tell whether these arguments for the assembler name no file and make no listing.

    words: what stood between the commas of -Wa, or after -Xassembler. Of the options in -m only
    those pass that cannot take the next word: the ones listed, and those that have a value."""
    words = iter(words)
    for word in words:
        if word == "--defsym":
            if not defines_number(next(words, "")):
                return False
        elif word not in HARMLESS_ASSEMBLER_WORDS and not (
                word[:2] == "-m" and word.find("=") > 2 and PLAIN_CHARACTERS.issuperset(word)):
            return False
    return True


def defines_number(word):
    """Tell whether a word is NAME=NUMBER, as the assembler's --defsym takes it."""
    name, _, number = word.partition("=")
    digits = number[2:] if number[:2] in ("0x", "0X") else number
    return bool(name) and name[0] not in "0123456789" \
        and NAME_CHARACTERS.issuperset(name) and bool(digits) \
        and (HEX_DIGITS if digits is not number else DECIMAL_DIGITS).issuperset(digits)


# Languages by suffix, and what `-x` calls each when it is preprocessed.
LANGUAGE_OF_SUFFIX = {
    ".c": "c", ".i": "cpp-output", ".cc": "c++", ".cpp": "c++", ".cxx": "c++", ".cp": "c++",
    ".c++": "c++", ".C": "c++", ".CPP": "c++", ".ii": "c++-cpp-output", ".m": "objective-c",
    ".mi": "objective-c-cpp-output", ".mm": "objective-c++", ".M": "objective-c++",
    ".mii": "objective-c++-cpp-output", ".s": "assembler", ".S": "assembler-with-cpp",
    ".sx": "assembler-with-cpp"}
PREPROCESSED_FORM = {
    "c": "cpp-output", "c++": "c++-cpp-output", "objective-c": "objective-c-cpp-output",
    "objective-c++": "objective-c++-cpp-output", "assembler-with-cpp": "assembler"}
PREPROCESSED_LANGUAGES = frozenset(PREPROCESSED_FORM.values())


def language_of(source, compiler):
    """Return the language, as -x names it, that `compiler` takes the file for; None if unknown.

    A driver whose name says C++ (g++, c++, clang++, x86_64-linux-gnu-g++-12) takes .c and .i
    for C++ (gcc manual, "Compiling C++ Programs")."""
    base = source.rpartition("/")[2]
    suffix = base[base.rfind("."):] if "." in base else ""
    language = LANGUAGE_OF_SUFFIX.get(suffix)
    if "++" in compiler.rpartition("/")[2] and language in ("c", "cpp-output"):
        language = "c++" if language == "c" else "c++-cpp-output"
    return language


# -------------------------------------------------------------------------------------------
# Store: the contents of files by their digests, one inode for each content, time and mode
# choose_cache_directory prepare_cache_directory Store OwnFiles
# -------------------------------------------------------------------------------------------

# In the cache directory, below a directory named after this format:
#   plain/ab/DIGEST-SIZE-MTIME-MODE[.N]   contents that no job can run: never an ELF file
#   code/ab/...                           contents that may be run (kinds x and l), and ELF files
#   pages/ab/DIGEST                       pages of lists of files
#   jobs/PID_RANDOM/                      one job: what it received, and its tree of hard links
#   jobs/idle_TIME_RANDOM_PAGES/          the same, left with its tree for a job to come; PAGES
#                                         are the beginnings of the digests of its pages
#   claims                                who fetches what, by byte locks
#   own                                   digests of this machine's own files
#   filled                                bytes stored since the store was last cut
#   boot                                  which run of this machine's kernel wrote all this
# MODE is x or -. N tells files apart that are equal but different ones on the client.
STORE_FORMAT = "2"
CUT_AFTER = 1 / 16                      # the store is cut when so much of its size has come anew,
CUT_TO = 7 / 8                          # to so much of its size
PAGE_UNTOUCHED_S = 3600                 # a page's time of last use is right to an hour
LEAST_FREE_BYTES = 1024 ** 3            # on the disk, or less where that is small
MOST_OWN_FILES = 4096                   # whose digests are remembered
ELF_MAGIC = b"\x7fELF"


def choose_cache_directory(options):
    """Return the path (str) of the cache directory: the option's, else the system's; "" if there
    is none."""
    if options.cache_dir:
        return os.path.abspath(options.cache_dir)
    if os.environ.get("CACHE_DIRECTORY"):               # as systemd gives it: the first of a list
        return os.path.abspath(os.environ["CACHE_DIRECTORY"].partition(":")[0])
    if os.geteuid() == 0:
        return "/var/cache/distccd.py"
    home = os.path.expanduser("~")      # "~" for a user whom nobody knows
    caches = os.environ.get("XDG_CACHE_HOME") or (
        os.path.join(home, ".cache") if os.path.isabs(home) else "")
    return os.path.join(os.path.abspath(caches), "distccd.py") if caches else ""


def prepare_cache_directory(path, user):
    """Make the cache directory if it is not there, and give it to the user (pwd entry) that root
    is about to become, or None. Raises OSError.

    An empty one of root's is as good as none: systemd and administrators make it so."""
    if not os.path.isdir(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mkdir(path, 0o700)
    if user is not None and os.stat(path).st_uid == 0 and not os.listdir(path):
        os.chown(path, user.pw_uid, user.pw_gid)


class Store:
    """The directory that keeps what jobs brought, for the jobs to come.

    path: bytes; fd: its descriptor. Nothing in it is ever changed in place: files come by link()
    and go by unlink(), and who has linked one into a job's tree keeps it."""

    def __init__(self, directory, limit_bytes):
        """directory: the cache directory, a str; limit_bytes: what the store may grow to.

        Raises OSError."""
        facts = os.stat(directory)
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
            raise PermissionError(errno.EACCES, "it is not this daemon's user's alone")
        self.path = os.path.join(os.fsencode(directory), os.fsencode(STORE_FORMAT))
        self.limit_bytes = limit_bytes
        for name in (b"", b"plain", b"code", b"pages", b"jobs"):
            os.makedirs(os.path.join(self.path, name), 0o700, exist_ok=True)
        self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        self.claims = os.open(b"claims", os.O_RDWR | os.O_CREAT, 0o600, dir_fd=self.fd)
        self.own = OwnFiles(self.path + b"/own")

    def try_claim(self, digest):
        """Claim to be the one who fetches a content, unless another does; tell whether we are.

        A claim ends with its process. It is the lock of one byte whose place the digest names."""
        try:
            fcntl.lockf(self.claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(digest[:15], 16))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            return False
        return True

    def give_claim_up(self, digest):
        """End a claim of ours."""
        fcntl.lockf(self.claims, fcntl.LOCK_UN, 1, int(digest[:15], 16))

    def add(self, path, name):
        """Take the file `path` (bytes, of this file system) in under a name relative to the
        store, unless there is one. Raises OSError."""
        for _ in range(2):
            try:
                os.link(path, name, dst_dir_fd=self.fd)
            except FileExistsError:
                pass
            except FileNotFoundError:   # the first of its directory
                os.makedirs(os.path.join(self.path, os.path.dirname(name)), exist_ok=True)
                continue
            return

    def variants(self, digest):
        """Return the names (bytes) under which the store holds this content, whatever the time."""
        found = []
        for folder in (b"plain/", b"code/"):
            directory = folder + digest[:2]
            try:
                names = os.listdir(os.path.join(self.path, directory))
            except FileNotFoundError:
                continue
            found += [b"%s/%s" % (directory, name) for name in names if name.startswith(digest)]
        return found

    def read_page(self, digest):
        """Return the bytes of a page, or None if it is not here."""
        try:
            fd = os.open(b"pages/%s/%s" % (digest[:2], digest), os.O_RDONLY, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        try:
            facts = os.fstat(fd)
            if time.time() - facts.st_ctime > PAGE_UNTOUCHED_S:
                os.utime(fd)            # which sets the time that cut() goes by
            return os.read(fd, facts.st_size)
        finally:
            os.close(fd)

    def check_room(self, count):
        """Raise Refused (107) if the disk would have too little left after so many bytes more:
        a twentieth of it is for others, but no more than LEAST_FREE_BYTES."""
        disk = os.fstatvfs(self.fd)
        left = min(disk.f_blocks * disk.f_frsize // 20, LEAST_FREE_BYTES)
        if disk.f_bavail * disk.f_frsize < count + left:
            raise Refused(EXIT_IO_ERROR, "the disk of the cache directory is nearly full")

    def note_growth(self, count):
        """So many bytes have come anew: cut the store when it is time. Never raises.

        One process does it; others that come meanwhile do not wait."""
        try:
            fd = os.open(b"filled", os.O_RDWR | os.O_CREAT, 0o600, dir_fd=self.fd)
        except OSError:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            filled = int(os.pread(fd, 32, 0) or b"0") + count
            if filled > CUT_AFTER * self.limit_bytes:
                self.cut()
                filled = 0
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d" % filled, 0)
        except (OSError, ValueError) as error:
            log("debug", "the store is not cut: %s" % error)
        finally:
            os.close(fd)

    def cut(self):
        """Remove what was linked least recently until the store is well below its limit. What a
        tree holds on to would free nothing."""
        self.remove_idle_trees()
        files = []
        for entry in self.entries():
            facts = entry.stat(follow_symlinks=False)
            files.append((facts.st_nlink > 1, facts.st_ctime_ns, facts.st_size + 4096, entry.path))
        total = sum(size for _, _, size, _ in files)
        if total <= self.limit_bytes:
            return
        for held, _, size, path in sorted(files):
            if held:
                break
            os.unlink(path)
            total -= size
            if total <= CUT_TO * self.limit_bytes:
                break

    def sweep(self, pid=None):
        """Remove the directories of jobs that died without cleaning; with pid that process's.

        Tell whether all went: the job's first process may not have ended yet, which holds the
        lock for a moment."""
        start = b"" if pid is None else b"%d_" % pid
        try:
            for name in os.listdir(self.path + b"/jobs"):
                if name.startswith(start) and not name.startswith(IDLE_PREFIX):
                    sweep_one(self.path + b"/jobs/" + name, 0 if pid is not None else STALE_JOB_S)
            return pid is None or not any(name.startswith(start) for name
                                          in os.listdir(self.path + b"/jobs"))
        except OSError as error:
            log("error", "cannot clean the cache directory: %s" % error)
            return True

    def check_after_boot(self):
        """Since this machine was started anew: remove what a crash may have spoiled, which is
        files whose contents had not reached the disk. Raises OSError.

        File systems then show them empty or short, which is cheap to see; pages are digested."""
        try:
            with open("/proc/sys/kernel/random/boot_id", "rb") as stream:
                boot = stream.read()
            with open(self.path + b"/boot", "rb") as stream:
                if stream.read() == boot:
                    return
        except FileNotFoundError:
            pass
        self.remove_idle_trees()
        for name in (b"/own", b"/filled"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path + name)
        for entry in self.entries():
            good = digest_file(entry.path) == entry.name if b"-" not in entry.name \
                else size_in_name(entry.name) == entry.stat(follow_symlinks=False).st_size
            if not good:
                log("notice", "removed from the store after a crash: %s" % printable(entry.name))
                os.unlink(entry.path)
        with open(self.path + b"/boot", "wb") as stream:
            stream.write(boot)

    def entries(self):
        """Yield an os.DirEntry for each file that is stored."""
        for folder in (b"plain", b"code", b"pages"):
            for shard in os.listdir(os.path.join(self.path, folder)):
                with os.scandir(os.path.join(self.path, folder, shard)) as entries:
                    for entry in entries:
                        yield entry

    def remove_idle_trees(self):
        """Remove the trees that were left for jobs to come: they hold on to files. Raises
        OSError."""
        for name in os.listdir(self.path + b"/jobs"):
            if name.startswith(IDLE_PREFIX):
                ours = b"%s/jobs/%d_%s" % (self.path, os.getpid(), os.urandom(6).hex().encode())
                with contextlib.suppress(FileNotFoundError):
                    os.rename(self.path + b"/jobs/" + name, ours)
                    remove_tree(ours)


YOUNG_NS = 100000000                    # more than the grain of a file system's clock


class OwnFiles:
    """This machine's own files: their digests, remembered in a file by path, times, size, inode.

    Each job asks for some fifty; reading a compiler of 30 MB takes 50 ms, looking up 2 us."""

    def __init__(self, path):
        """path: of the file that remembers (bytes), which may be removed at any time; or None."""
        self.path = path
        self.known = None if path else {}       # {path: (mtime_ns, size, inode, ctime_ns, digest)}
        self.changed = False

    def load(self):
        """Read what is remembered; a file that cannot be read is an empty one."""
        try:
            with open(self.path, "rb") as stream:
                lines = stream.read().split(b"\n")
            self.known = {path: (int(mtime), int(size), int(inode), int(ctime), digest)
                          for mtime, size, inode, ctime, digest, path
                          in (line.split(b" ", 5) for line in lines if line)}
        except (OSError, ValueError):
            self.known = {}

    def facts_of(self, path, check):
        """Return (digest, size, mtime_ns) of this machine's own regular file at an absolute path
        (bytes), links followed; None if there is none that we may read.

        check(path, size) is called if it must be digested, and may raise Refused."""
        if self.known is None:
            self.load()
        try:
            facts = os.stat(path)
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_FILE_BYTES:
                return None
            now = facts.st_mtime_ns, facts.st_size, facts.st_ino, facts.st_ctime_ns
            known = self.known.get(path)
            if known is None or known[:4] != now:
                check(path, facts.st_size)
                known = now + (digest_file(path),)
                # What has changed just now may change again before the clock moves on.
                is_young = abs(time.time_ns() - facts.st_ctime_ns) < YOUNG_NS
                if b"\n" not in path and not is_young:
                    if len(self.known) >= MOST_OWN_FILES and path not in self.known:
                        self.known = {}     # what is wanted will be asked for again
                    self.known[path] = known
                    self.changed = True
        except (OSError, ValueError):
            return None
        return known[4], known[1], known[0]

    @staticmethod
    def equals(path, digest, size):
        """Tell whether this machine's own file has this content. It is not remembered."""
        try:
            facts = os.stat(path)
            return stat.S_ISREG(facts.st_mode) and facts.st_size == size \
                and digest_file(path) == digest
        except (OSError, ValueError):
            return False

    def save(self):
        """Remember what was found out. Never raises."""
        if not self.changed or not self.path:
            return
        self.changed = False
        temporary = b"%s.%d" % (self.path, os.getpid())
        try:
            with open(temporary, "wb") as stream:
                for path, facts in self.known.items():
                    stream.write(b"%d %d %d %d %s %s\n" % (facts + (path,)))
            os.rename(temporary, self.path)
        except OSError as error:
            log("debug", "digests are not remembered: %s" % error)


def own_files_path(options):
    """Return the path (bytes) at which a daemon without a store remembers the digests of this
    machine's own files; None if it has no cache directory of its own to keep them in."""
    directory = options.cache_directory
    try:
        facts = os.stat(directory)
        if facts.st_uid == os.geteuid() and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return os.fsencode(directory) + b"/own-files"
    except OSError:
        pass
    return None


def size_in_name(name):
    """Return the size that a content's name in the store tells."""
    return int(name.rpartition(b"/")[2].split(b"-")[1], 16)


def digest_file(path):
    """Return the digest of a file's content, as digest_of() does. Raises OSError."""
    state = blake2b(digest_size=DIGEST_DIGITS // 2)
    with open(path, "rb", buffering=0) as stream:
        while True:
            piece = stream.read(CHUNK_BYTES)
            if not piece:
                return state.hexdigest().encode()
            state.update(piece)


def begins_elf(path):
    """Tell whether a file is one that can be run or loaded. Raises OSError."""
    with open(path, "rb", buffering=0) as stream:
        return stream.read(len(ELF_MAGIC)) == ELF_MAGIC


# -------------------------------------------------------------------------------------------
# Root: a directory tree of the client's files, and processes that see nothing else
# NoRoot Kernel enter_user_namespace RootDirectory RootProcess RootCompile Roots make_roots
# -------------------------------------------------------------------------------------------

# How a job is fenced in. The daemon enters a user namespace when it starts, in which it may make
# further namespaces and mounts, and forbids any namespace of users below its own. For each job
#   - the connection's child gets a mount namespace of its own. There a tmpfs bounds what the job
#     can write, and an overlay puts it above a tree of hard links into the store. So the job
#     never writes to the store's files, and what it wrote is what lies in the upper directory.
#   - pid 1 of a new process namespace, without network and IPC of this machine, makes the overlay
#     its root, detaches all other mounts, gives all capabilities up, and starts the command.
# The kernel ends all processes of the job when pid 1 ends, which it does when the command has
# ended, or when the connection's child ends, however that happens.
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER = 0x20000, 0x8000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_CAPBSET_DROP = 1, 24               # further ones are named above
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
CAPABILITY_VERSION_3 = 0x20080522
MOST_CAPABILITIES = 64

DEVICES = (b"/dev/null", b"/dev/zero", b"/dev/urandom")
LEAST_UPPER_BYTES, MOST_UPPER_BYTES = 256 * 1024 ** 2, 4 * 1024 ** 3
UPPER_INODES = 16384
JOB_PROCESSES = 128                     # a compile driver has five at most, LTO as many as asked
TRIAL_TIMEOUT_S = 20
IDLE_PREFIX = b"idle_"

# What helps where a step of making a root fails, by the step's first word and perhaps the error.
REMEDIES = {
    "user": "allow user namespaces (sysctl user.max_user_namespaces, "
            "kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns; in a "
            "container its seccomp profile), or start the daemon as root",
    "namespaces": "allow namespaces (sysctl user.max_mnt_namespaces, user.max_pid_namespaces, "
                  "user.max_ipc_namespaces, user.max_net_namespaces)",
    "further": "make /proc/sys writable (in a container: --privileged, or "
               "--security-opt systempaths=unconfined)",
    "overlay": "load the module (modprobe overlay); an ordinary user needs Linux 5.11",
    "links": "give --cache-dir on a file system with hard links",
}


class NoRoot(Exception):
    """No root can be made; the text says at which step, why, and what helps."""

    def __init__(self, step, error=None):
        """step: the words of what was tried, or all of the text; error: OSError, or text."""
        reason = "" if error is None else ": %s" % (getattr(error, "strerror", None) or error)
        remedy = error is not None and REMEDIES.get(step.partition(" ")[0])
        super().__init__(step + reason + ("; remedy: " + remedy if remedy else ""))


class Kernel:
    """System calls that Python has no names for. Everything that they need is made here: between
    fork and exec nothing is loaded."""

    def __init__(self):
        """Raises NoRoot where the C library lacks one."""
        text, number = ctypes.c_char_p, ctypes.c_ulong
        self.libc = ctypes.CDLL(None, use_errno=True)
        for name, kinds in (("unshare", [ctypes.c_int]), ("setns", [ctypes.c_int] * 2),
                            ("mount", [text, text, text, number, text]),
                            ("umount2", [text, ctypes.c_int]), ("pivot_root", [text, text]),
                            ("prctl", [ctypes.c_int] + 4 * [number]),
                            ("capset", [ctypes.c_void_p] * 2)):
            try:
                function = getattr(self.libc, name)
            except AttributeError as error:
                raise NoRoot("system calls", error) from None
            function.argtypes, function.restype = kinds, ctypes.c_int
            setattr(self, name, function)
        self.capability_header = ctypes.create_string_buffer(
            struct.pack("Ii", CAPABILITY_VERSION_3, 0))
        self.no_capabilities = ctypes.create_string_buffer(24)

    @staticmethod
    def check(result):
        """Raise the OSError that a call's negative result stands for."""
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def drop_capabilities(self):
        """Give up every capability for good, also those that a program file could bring."""
        for capability in range(MOST_CAPABILITIES):
            if self.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
                break                   # the kernel knows no more
        self.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        self.check(self.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        self.check(self.capset(self.capability_header, self.no_capabilities))


def enter_user_namespace(kernel, user):
    """Become the only user of a new user namespace, and let none be made below it.

    user: pwd entry of whom root becomes, with root's privilege; None for an ordinary user, who
    stays who he is. Raises NoRoot, after which this process is good for nothing."""
    try:
        if user is None:
            uid, gid = os.getuid(), os.getgid()
            kernel.check(kernel.unshare(CLONE_NEWUSER))
            write_identities(os.getpid(), uid, gid)
        else:
            join_mapped_namespace(kernel, user)
    except OSError as error:
        raise NoRoot("user namespace", error) from None
    try:
        write_line("/proc/sys/user/max_user_namespaces", "0")
    except OSError as error:
        # Ubuntu's AppArmor gives an ordinary user a namespace in which he may do nothing.
        raise NoRoot("further user namespaces cannot be forbidden" if error.errno == errno.EROFS
                     else "user namespace without rights", error) from None


def write_line(path, text):
    """Write text to a file of /proc in one piece. Raises OSError."""
    with open(path, "w") as stream:
        stream.write(text)


def write_identities(pid, uid, gid):
    """Map these two, and no other, to themselves in the user namespace of a process."""
    write_line("/proc/%d/setgroups" % pid, "deny")
    write_line("/proc/%d/uid_map" % pid, "%d %d 1" % (uid, uid))
    write_line("/proc/%d/gid_map" % pid, "%d %d 1" % (gid, gid))


def join_mapped_namespace(kernel, user):
    """As root: make a user namespace whose map a helper outside of it writes, and become its one
    user. Root is gone for good then. Raises OSError."""
    os.setgroups(groups_of(user))
    read_end, write_end = os.pipe()
    ours = os.getpid()
    helper = os.fork()
    if not helper:
        failure = 0
        try:
            os.close(write_end)
            if os.read(read_end, 1):
                write_identities(ours, user.pw_uid, user.pw_gid)
        except OSError as error:
            failure = error.errno
        finally:
            os._exit(failure)
    os.close(read_end)
    try:
        kernel.check(kernel.unshare(CLONE_NEWUSER))
        os.write(write_end, b"1")
    finally:
        os.close(write_end)
        failure = os.waitpid(helper, 0)[1] >> 8
    if failure:
        raise OSError(failure, os.strerror(failure))
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)


def make_empty_network(kernel):
    """Return the descriptor of a network namespace without any interface that is up.

    A child makes it and hands it over, for its maker does not get back out. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        child = os.fork()
        if not child:
            try:
                kernel.check(kernel.unshare(CLONE_NEWNET))
                fd = os.open("/proc/self/ns/net", os.O_RDONLY)
                theirs.sendmsg([b"0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                                         struct.pack("i", fd))])
            except OSError as error:
                theirs.send(b"%d" % error.errno)
            finally:
                os._exit(0)
        theirs.close()
        word, passed, _, _ = ours.recvmsg(16, socket.CMSG_SPACE(4))
        os.waitpid(child, 0)
    if not passed:
        number = int(word or b"0")
        raise OSError(number, os.strerror(number))
    fd, = struct.unpack("i", passed[0][2][:4])
    os.set_inheritable(fd, False)
    return fd


class Tree(collections.namedtuple("Tree", "folders links files")):
    """What lies in a job's tree: folders (a set of absolute paths, with all parents of anything;
    b"" is the root), links {path: target}, files {path: name in the store}."""


MARK_DIGITS, MOST_MARKS = 7, 28


def pack_marks(pages):
    """Return a word that tells, near enough, which pages (digests) a tree was made of: of jobs
    with many pages those that come first, the toolchain's among them."""
    return b"".join(digest[:MARK_DIGITS] for digest in pages[:MOST_MARKS])


def read_marks(name):
    """Return the set of marks at the end of a name."""
    word = name.rpartition(b"_")[2]
    return {word[at:at + MARK_DIGITS] for at in range(0, len(word), MARK_DIGITS)}


class RootDirectory:
    """One job's directory in the store: in/ for what it receives, lower/ for its tree, top/ to
    mount on.

    A tree is left for the next job, which changes only what is different: making and removing one
    of 400 files takes 10 to 30 ms, and that of the neighbouring source is nearly the same. No job
    can change its tree, for that is the lower layer of its root.

    path: bytes, None until it is made; tree: Tree, what is in lower/. As with JobDirectory a lock
    tells that it is in use."""

    def __init__(self, store):
        self.store = store
        self.path = self.fd = self.tree = None
        self.marks = b""
        self.detach = lambda: None

    def make(self, pages, most_idle, fresh=False):
        """Take the tree that shares most with `pages` (digests), of those that were left, or make
        a new one: always if it is to be fresh, and if none shares anything while fewer than
        most_idle are there, for that is faster than to change one. Raises OSError."""
        jobs = self.store.path + b"/jobs/"
        path = jobs + b"%d_%s" % (os.getpid(), os.urandom(6).hex().encode())
        self.marks = pack_marks(pages)
        idle = [] if fresh else sorted(
            ((len(read_marks(name) & read_marks(self.marks)), name)
             for name in os.listdir(jobs) if name.startswith(IDLE_PREFIX)), reverse=True)
        for shared, name in idle:
            if not shared and len(idle) < most_idle:
                break
            if self.take_over(jobs + name, path):
                return
        os.mkdir(path, 0o700)
        self.hold(path)
        for name in (b"/in", b"/lower", b"/top", b"/lower/dev"):
            os.mkdir(path + name, 0o755)
        for device in DEVICES:
            os.close(os.open(path + b"/lower" + device, os.O_WRONLY | os.O_CREAT | os.O_EXCL,
                             0o644))
        self.tree = Tree({b"", b"/dev"}, {}, {})

    def hold(self, path):
        """Lock the directory, which is ours from then on. Raises OSError."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        self.path, self.fd = path, fd

    def take_over(self, idle, path):
        """Rename a directory that was left, so that it is ours; tell whether that went well."""
        try:
            os.rename(idle, path)
            self.hold(path)
        except OSError:
            return False                # another was faster, or just now sweeps
        try:
            with open(path + b"/tree", "rb") as stream:
                self.tree = Tree(*marshal.load(stream))
            os.unlink(path + b"/tree")  # it holds no more, should we be killed
        except (OSError, ValueError, EOFError, TypeError):
            self.remove()
            return False
        return True

    def leave(self, tree, most_idle):
        """Leave the directory with this tree for a job to come, if not too many are there."""
        jobs = self.store.path + b"/jobs/"
        idle = [name for name in os.listdir(jobs) if name.startswith(IDLE_PREFIX)]
        if len(idle) >= most_idle or os.environ.get("DISTCC_SAVE_TEMPS") == "1":
            self.remove()
            return
        os.chdir("/")
        self.detach()
        remove_tree(self.path + b"/in")
        os.mkdir(self.path + b"/in", 0o755)
        with open(self.path + b"/tree", "wb") as stream:
            marshal.dump(tuple(tree), stream)
        os.close(self.fd)               # or who takes it over could not lock it
        self.fd = None
        os.rename(self.path, jobs + IDLE_PREFIX + b"%016x_%s_%s" % (
            time.time_ns(), os.urandom(6).hex().encode(), self.marks))
        self.path = None

    def shape(self, tree):
        """Make the directories and symbolic links of a Tree, and nothing else but what is there
        already of its files. This process goes to lower/ for it.

        No name that is made here lies below a link, so nothing is ever made elsewhere. Raises
        OSError."""
        os.chdir(self.path + b"/lower")
        for old, new in ((self.tree.files, tree.files), (self.tree.links, tree.links)):
            for path, there in old.items():
                if new.get(path) != there:
                    os.unlink(path[1:])
        for path in sorted(self.tree.folders - tree.folders, reverse=True):
            os.rmdir(path[1:])
        for path in sorted(tree.folders - self.tree.folders):
            os.mkdir(path[1:], 0o755)
            if path == b"/tmp":
                os.chmod(path[1:], 0o1777)
        for path, target in tree.links.items():
            if self.tree.links.get(path) != target:
                os.symlink(target, path[1:])

    def mount(self, kernel, upper_bytes):
        """In a mount namespace of this process's own: lay a bounded, writable layer over the
        tree. Raises NoRoot."""
        step = "namespaces for mounts"
        try:
            kernel.check(kernel.unshare(CLONE_NEWNS))
            kernel.check(kernel.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
            step = "tmpfs"
            os.chdir(self.path)         # a comma in a path would end an option of mount()
            kernel.check(kernel.mount(
                b"tmpfs", b"top", b"tmpfs", MS_NOSUID | MS_NODEV,
                b"size=%d,nr_inodes=%d,mode=0700" % (upper_bytes, UPPER_INODES)))
            self.detach = lambda: kernel.umount2(self.path + b"/top", MNT_DETACH)
            for name in (b"top/upper", b"top/work", b"top/root"):
                os.mkdir(name, 0o755)
            step = "overlay"
            layers = b"lowerdir=lower,upperdir=top/upper,workdir=top/work"
            if kernel.mount(b"overlay", b"top/root", b"overlay", MS_NOSUID | MS_NODEV,
                            layers + b",userxattr") < 0:
                kernel.check(kernel.mount(b"overlay", b"top/root", b"overlay",
                                          MS_NOSUID | MS_NODEV, layers))
            step = "devices"
            for device in DEVICES:
                kernel.check(kernel.mount(device, b"top/root" + device, None, MS_BIND, None))
        except OSError as error:
            raise NoRoot(step, error) from None

    def remove(self):
        """Remove it with all that is in it. Never raises."""
        if self.path is not None:
            os.chdir("/")
            self.detach()
            remove_tree(self.path)
        if self.fd is not None:
            os.close(self.fd)
        self.path = self.fd = None


class RootCommand(collections.namedtuple(
        "RootCommand", "argv directory environment umask has_terminal")):
    """What is run in a root: argv, directory and environment (a dict) of bytes. Without argv it
    is a trial that succeeds when all is ready to run something."""


def open_terminal():
    """Return (descriptor to read, descriptor to write) of a new terminal, which passes all bytes
    on as they are: where the client's stderr is one, compilers use colours and the like."""
    read_end, write_end = os.openpty()
    attributes = termios.tcgetattr(write_end)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(write_end, termios.TCSANOW, attributes)
    return read_end, write_end


class RootProcess:
    """pid 1 of a job's processes, and what Compile needs of a subprocess.Popen. It reports over a
    pipe: "r" when it is ready, then "!" and a reason if the command could not be started, else the
    raw wait status."""

    stdin = None

    def __init__(self, roots, directory, command):
        """Start it. directory: RootDirectory, mounted. Raises NoRoot, OSError."""
        self.returncode = None
        self.pid = None
        report, report_end = os.pipe()
        go, go_end = os.pipe()
        out, out_end = os.pipe()
        err, err_end = open_terminal() if command.has_terminal else os.pipe()
        self.stdout, self.stderr = os.fdopen(out, "rb", 0), os.fdopen(err, "rb", 0)
        self.report, self.go = os.fdopen(report, "rb", 0), os.fdopen(go_end, "wb", 0)
        try:
            try:
                roots.isolate()
            except OSError as error:
                raise NoRoot("namespaces of processes", error) from None
            self.pid = os.fork()
            if not self.pid:
                os.close(go_end)
                be_first_process(roots, directory, command, go, report_end, out_end, err_end)
        finally:
            for fd in (report_end, go, out_end, err_end):
                os.close(fd)

    def release(self):
        """Let it begin, now that its maker has noted whom to end, and the kernel too: it leads a
        group of its own, and ends with its maker. Raises NoRoot."""
        if self.report.read(1) != b"r":
            raise NoRoot("processes", "the first one has ended")
        self.go.write(b"g")
        self.go.close()

    def poll(self):
        """Return the exit status of pid 1, None while it is there."""
        if self.returncode is None:
            self.take_status(os.WNOHANG)
        return self.returncode

    def wait(self):
        """Wait for pid 1, with which all of its processes end."""
        if self.returncode is None:
            self.take_status(0)

    def take_status(self, flags):
        """Reap pid 1 if it has ended."""
        try:
            pid, status = os.waitpid(self.pid, flags)
        except ChildProcessError:
            pid, status = self.pid, 0
        if pid:
            self.returncode = status

    def read_status(self):
        """Return the raw wait status of the command. Raises Refused if it never ran, or if its
        end was not reported."""
        text = self.report.read(4096)
        self.report.close()
        if not text:                    # it was killed
            self.wait()
        if text[:1] == b"!":
            code, _, reason = text[1:].partition(b"\n")[0].partition(b" ")
            raise Refused(int(code), printable(reason))
        if len(text) != 4:
            raise Refused(EXIT_DISTCC_FAILED, "the job was ended by signal %d"
                          % (self.returncode & 0x7f))
        return struct.unpack("i", text)[0]


def be_first_process(roots, directory, command, go, report, out, err):
    """Be pid 1 of a job: make the root, start the command, report how it ends. Never returns.

    go: readable when all may begin; at end of file the connection's child has gone."""
    failure = b"!%d the job's first process failed" % EXIT_DISTCC_FAILED
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)       # our handlers serve the connection
        os.close(directory.fd)          # its lock is our maker's, and ends with that
        os.setsid()
        roots.kernel.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.write(report, b"r")
        if os.read(go, 1):
            enter_root(roots.kernel, directory)
            lower_limit(resource.RLIMIT_NPROC, roots.most_processes)
            status = run_command(command, out, err)
            failure = struct.pack("i", status)
    except CannotStart as error:
        failure = b"!%d %s" % (EXIT_COMPILER_MISSING, os.fsencode(str(error)))
    except OSError as error:
        failure = b"!%d making the root: %s" % (EXIT_DISTCC_FAILED, error.strerror.encode())
    finally:
        os.write(report, failure)
        os._exit(0)


def enter_root(kernel, directory):
    """Leave everything but the root behind, and all privileges. Raises OSError.

    This process is not to be traced by the command, which runs as the same user: so it is made
    undumpable."""
    kernel.check(kernel.unshare(CLONE_NEWNS))
    os.chdir(directory.path + b"/top/root")
    kernel.check(kernel.pivot_root(b".", b"."))
    kernel.check(kernel.umount2(b".", MNT_DETACH))
    os.chdir(b"/")
    kernel.check(kernel.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
    kernel.drop_capabilities()


class CannotStart(Exception):
    """A command could not be started; the text says why."""


def run_command(command, out, err):
    """Run the command in the present root, and end and reap all that it leaves; return its raw
    wait status. Raises CannotStart, OSError."""
    os.dup2(os.open(b"/dev/null", os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    pid = start_command(command) if command.argv else os.fork() or os._exit(0)
    for fd in (out, err, 1, 2):         # so that our maker sees their end when the command ends
        os.close(fd)
    status = 0
    with contextlib.suppress(ChildProcessError):
        while True:
            ended, how = os.wait()
            if ended == pid:
                status = how
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, signal.SIGKILL)     # all but us: nothing is written any more
    return status


def start_command(command):
    """Start a command as it would run on the client; return its process id. Raises CannotStart,
    OSError."""
    os.umask(command.umask)
    try:
        os.chdir(command.directory)
    except OSError as error:
        raise CannotStart("working directory: %s: %s" % (error.strerror,
                                                         os.fsdecode(command.directory)))
    program = command.argv[0]
    places = [b""] if b"/" in program else command.environment.get(b"PATH", b"").split(b":")
    found = None
    for place in places:
        path = place + b"/" + program if place else program
        try:
            return spawn(path, command.argv, command.environment)
        except OSError as error:
            if found is None or error.errno != errno.ENOENT:
                found = error
    raise CannotStart("cannot run %s: %s" % (os.fsdecode(program), found.strerror))


DEFAULT_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGHUP, signal.SIGPIPE)


def spawn(path, argv, environment):
    """Start a program in a session of its own; return its process id. Raises OSError.

    Where Python can, without copying this process for it, which takes 0.7 ms."""
    if hasattr(os, "posix_spawn"):
        return os.posix_spawn(path, argv, environment, setsid=True, setsigdef=DEFAULT_SIGNALS)
    fault, fault_end = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setsid()
            for number in DEFAULT_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            os.execve(path, argv, environment)
        except OSError as error:
            os.write(fault_end, b"%d" % error.errno)
        finally:
            os._exit(127)
    os.close(fault_end)
    with os.fdopen(fault, "rb") as stream:
        number = int(stream.read() or b"0")
    if number:
        os.waitpid(pid, 0)
        raise OSError(number, os.strerror(number))
    return pid


class RootCompile(Compile):
    """A compile by a RootProcess. The command's status comes over a pipe."""

    def __init__(self, process, peer):
        """process: RootProcess, not yet released."""
        self.peer, self.process = peer, process
        self.stdin, self.stdout, self.stderr = None, process.stdout, process.stderr
        self.source = []
        self.messages = {"stdout": bytearray(), "stderr": bytearray()}
        self.ended = False
        self.poller = select.poll()
        self.pipes = {}
        self.watch(process.stdout, select.POLLIN, self.collect)
        self.watch(process.stderr, select.POLLIN, self.collect)

    def end(self):
        """Kill pid 1 and with it all others, and wait until they have gone. Never raises.

        It may not lead its group yet."""
        if self.process.returncode is None:
            kill_quietly(self.process.pid, signal.SIGKILL)
        super().end()

    def await_end(self, deadline, lifetime_s):
        """Return the raw wait status of the command when none of its processes is left.

        pid 1 may still be there: the end of its namespaces takes the kernel a millisecond."""
        report = select.poll()
        report.register(self.process.report, select.POLLIN)
        while not report.poll(COMPILE_POLL_MS):
            self.peer.watch(0)
            if deadline is not None and time.monotonic() >= deadline:
                raise Refused(EXIT_DISTCC_FAILED, "the command ended after %g s (--job-lifetime)"
                              % lifetime_s)
        return self.process.read_status()


class Roots:
    """What all roots need: the store, the empty network, the bounds. Made in a process that has
    entered its user namespace."""

    def __init__(self, kernel, store, options):
        """Raises NoRoot."""
        self.kernel, self.store = kernel, store
        try:
            self.network = make_empty_network(kernel)
        except OSError as error:
            raise NoRoot("namespaces of networks", error) from None
        # Compilers open no sockets. What a client brings itself does: it gets a network of its
        # own, which takes 0.5 ms, or it would meet other jobs there (abstract sockets).
        self.shares_network = not options.foreign_programs
        self.most_idle = options.jobs   # trees that are kept, a place's each
        self.upper_bytes = min(MOST_UPPER_BYTES,
                               max(LEAST_UPPER_BYTES, machine_memory() // (2 * options.jobs)))
        # The kernel counts all processes of this user in this namespace.
        self.most_processes = 3 * options.max_connections + JOB_PROCESSES * options.jobs
        hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        if hard != resource.RLIM_INFINITY:
            self.most_processes = min(self.most_processes, hard)
        for name in os.listdir("/proc/self/fd"):        # what our starter left open is a way out
            with contextlib.suppress(OSError):
                if int(name) > 2:
                    os.set_inheritable(int(name), False)

    def isolate(self):
        """Have the next child of this process be the first of its own process namespace, without
        network and IPC of this machine. Raises OSError."""
        if self.shares_network:
            self.kernel.check(self.kernel.setns(self.network, CLONE_NEWNET))
        self.kernel.check(self.kernel.unshare(
            CLONE_NEWPID | CLONE_NEWIPC | (0 if self.shares_network else CLONE_NEWNET)))

    def try_out(self):
        """Make a root, and run next to nothing in it. Raises NoRoot."""
        directory = RootDirectory(self.store)
        try:
            try:
                directory.make([], 0, fresh=True)
                with open(directory.path + b"/in/trial", "wb"):
                    pass
                os.link(directory.path + b"/in/trial", directory.path + b"/lower/trial")
            except OSError as error:
                raise NoRoot("links in the cache directory", error) from None
            directory.mount(self.kernel, self.upper_bytes)
            process = RootProcess(self, directory, RootCommand([], b"/", {}, 0o022, False))
            process.release()
            process.wait()
            process.read_status()
        except Refused as error:
            raise NoRoot("root", str(error)) from None
        finally:
            directory.remove()


def make_roots(options):
    """Return the Roots of a daemon, which becomes another user by it if it was root.

    First a child does all of it, so that a failure leaves this process as it was. Raises NoRoot;
    Fatal if --cache-dir cannot be used."""
    if sys.platform != "linux":
        raise NoRoot("roots", "only Linux has what they need")
    kernel = Kernel()
    user = options.account
    cache_directory = choose_cache_directory(options)
    if not cache_directory:
        raise NoRoot("store: this user has no home directory to keep files in; remedy: "
                     "--cache-dir, or $HOME")
    try:
        prepare_cache_directory(cache_directory, user)
    except OSError as error:
        blame_cache_directory(options, cache_directory, error)
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        report = b"Nthe trial of a root failed"
        try:
            report = try_roots(kernel, user, cache_directory, options)
        finally:
            os.write(write_end, report)
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as stream:
        report = stream.read()
    os.waitpid(child, 0)
    if report[:1] == b"C":
        blame_cache_directory(options, cache_directory, os.fsdecode(report[1:]))
    if report != b"Y":
        raise NoRoot(os.fsdecode(report[1:]) or "the trial of a root took too long")
    try:
        roots = enter_and_open(kernel, user, cache_directory, options)
        roots.store.check_after_boot()
        return roots
    except OSError as error:
        raise NoRoot("store", error) from None


def enter_and_open(kernel, user, cache_directory, options):
    """Enter the user namespace and return the Roots. Raises NoRoot, OSError (the store)."""
    enter_user_namespace(kernel, user)
    return Roots(kernel, Store(cache_directory, options.cache_size), options)


def try_roots(kernel, user, cache_directory, options):
    """In a child: do all that make_roots() does, and make a root. Return b"Y", or b"N" and why
    that fails, b"C" and why if the cache directory is to blame."""
    signal.alarm(TRIAL_TIMEOUT_S)
    try:
        enter_and_open(kernel, user, cache_directory, options).try_out()
    except NoRoot as error:
        return b"N" + os.fsencode(str(error))
    except OSError as error:
        return b"C" + os.fsencode(error.strerror or str(error))
    return b"Y"


def blame_cache_directory(options, path, error):
    """The cache directory cannot be used: raise Fatal if it was asked for, else NoRoot."""
    uid = options.account.pw_uid if options.account else os.geteuid()
    reason = "cache directory %s cannot be used by %s: %s" % (
        printable(path), name_of_user(uid), getattr(error, "strerror", None) or error)
    remedy = "; remedy: give it to that user alone, or choose another with --cache-dir"
    if options.cache_dir:
        raise Fatal(EXIT_IO_ERROR, reason + remedy)
    raise NoRoot("store", reason + remedy)


def name_of_user(uid):
    """Return how a user is called in messages."""
    try:
        return "user %s" % pwd.getpwuid(uid).pw_name
    except KeyError:
        return "user %d" % uid


# -------------------------------------------------------------------------------------------
# Request and reply: what is read from the client and written to it
# Peer recv_version recv_command recv_source send_reply send_refusal
# -------------------------------------------------------------------------------------------

LIFE_AFTER_S = 0.8 * LIFE_INTERVAL_S    # early enough: nothing here waits as long as the rest


RECEIVED_STEP_BYTES = 256 * 1024


class Peer:
    """The client's end: two descriptors (the same twice for a socket), never blocking for good.

    name: the address for the log. received, sent: bytes so far. limit: time.monotonic() at
    which the whole request must be here, but for the time that its bytes take. by_files, version:
    how it is to be answered, and by which protocol if by text. answering: whether an answer by
    files has begun. send_limit: the same as limit for the answer, None before it. note(): bytes of
    its NOTE. next_life: time.monotonic() at which the next LIFE is due, None while it is not
    wanted. note_received(count) is told now and then how many bytes of a job by files are here."""

    def __init__(self, in_fd, out_fd, name):
        self.in_fd, self.out_fd, self.name = in_fd, out_fd, name
        self.stream = io.FileIO(in_fd, closefd=False)
        self.silence_s = silence_timeout_s()
        self.received = self.sent = 0
        self.by_files = self.answering = False
        self.version = PROTOCOL_VERSION
        self.note = lambda: b""
        self.note_received, self.next_note = lambda count: None, RECEIVED_STEP_BYTES
        self.next_life = None
        self.limit = time.monotonic() + SILENCES_PER_REQUEST * self.silence_s
        self.send_limit = None
        self.reader, self.writer = select.poll(), select.poll()
        self.reader.register(in_fd, select.POLLIN)
        self.writer.register(out_fd, select.POLLOUT)
        os.set_blocking(in_fd, False)
        os.set_blocking(out_fd, False)

    def receive(self, most):
        """Return 1 to `most` bytes, b"" at end of file. Raises Refused on silence, ClientGone."""
        piece = self.patiently(self.stream.read, most)
        self.received += len(piece)
        if self.received >= self.next_note:
            self.next_note = self.received + RECEIVED_STEP_BYTES
            self.note_received(self.received)
        return piece

    def receive_into(self, view):
        """The same into a buffer, without a copy more; return how many bytes came."""
        count = self.patiently(self.stream.readinto, view)
        self.received += count
        return count

    def patiently(self, read, where):
        """Return read(where) once that has something, or the end of file. Raises Refused on
        silence, ClientGone."""
        while True:
            try:
                result = read(where)
            except OSError as error:
                raise ClientGone(error.strerror) from None
            if result is not None:      # as it is while there is nothing to read
                return result
            self.await_bytes()

    def await_bytes(self):
        """Wait until something can be read. Raises Refused when the time-out has passed."""
        # What has come buys time, not what was announced.
        limit = self.limit + self.received / SLOWEST_BYTES_PER_S
        wait_s = min(self.silence_s, limit - time.monotonic())
        if wait_s <= 0:
            raise Refused(EXIT_IO_ERROR, "the request came too slowly")
        if not self.reader.poll(1000 * wait_s) and wait_s == self.silence_s:
            raise Refused(EXIT_IO_ERROR, "nothing came for %g s" % self.silence_s)

    def watch(self, timeout_ms):
        """Wait so long, and see whether the client leaves. Raises ClientGone, Refused."""
        self.send_life()
        if self.reader.poll(timeout_ms):
            self.meet_silence()

    def send_life(self):
        """Tell a client by files that its job goes on, if it is time to. Raises ClientGone."""
        if self.next_life is not None and time.monotonic() >= self.next_life:
            self.next_life = time.monotonic() + LIFE_AFTER_S
            self.send(pack_header(b"LIFE", 0))

    def meet_silence(self):
        """The client stirs, and after its request it can only leave or be at fault: raise that."""
        try:
            piece = os.read(self.in_fd, 1)
        except BlockingIOError:
            return
        except OSError as error:
            raise ClientGone(error.strerror) from None
        if not piece:
            raise ClientGone("connection closed")
        raise Refused(EXIT_PROTOCOL_ERROR, "there is more after the request")

    def await_room(self):
        """Wait until something can be written. Raises ClientGone when the client takes nothing,
        or too little."""
        if not self.writer.poll(1000 * self.silence_s):
            raise ClientGone("it took nothing for %g s" % self.silence_s)
        if self.send_limit is not None \
                and time.monotonic() > self.send_limit + self.sent / SLOWEST_BYTES_PER_S:
            raise ClientGone("it took the answer too slowly")

    def send(self, data):
        """Write all of data (a buffer). Raises ClientGone."""
        view = memoryview(data)
        while view.nbytes:
            try:
                count = os.write(self.out_fd, view)
            except BlockingIOError:
                self.await_room()
                continue
            except OSError as error:
                raise ClientGone(error.strerror) from None
            self.sent += count
            view = view[count:]

    def send_file(self, fd, size):
        """Write the first `size` bytes of the file `fd`. Raises ClientGone, OSError."""
        start = 0
        while start < size:
            try:
                count = os.sendfile(self.out_fd, fd, start, min(size - start, 1 << 30))
            except BlockingIOError:
                self.await_room()
                continue
            except (BrokenPipeError, ConnectionError) as error:
                raise ClientGone(error.strerror) from None
            if not count:
                raise ClientGone("the object became shorter")
            self.sent += count
            start += count

    def drain(self):
        """After an early answer, throw away what the client still sends, within bounds.

        Closing with bytes unread makes the kernel send a reset, which can overtake the answer."""
        try:
            with socket.socket(fileno=os.dup(self.out_fd)) as connection:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            return
        limit = time.monotonic() + DRAIN_S
        left = DRAIN_BYTES
        while left > 0 and self.reader.poll(max(0.0, 1000 * (limit - time.monotonic()))):
            try:
                piece = os.read(self.in_fd, CHUNK_BYTES)
            except OSError:
                return
            if not piece:
                return
            left -= len(piece)


def recv_version(peer):
    """Return the version of the request, and have the peer answered accordingly: an unknown one
    as one by files. Raises WireError, Refused, ClientGone."""
    version = read_header(peer.receive, b"DIST", 0xffffffff)
    peer.by_files = version not in (PROTOCOL_VERSION, CHECKED_TEXT_VERSION)
    if not peer.by_files:
        peer.version = version
    elif version != FILES_VERSION:
        raise WireError(EXIT_PROTOCOL_ERROR, "protocol version %d is not served here, only %d, "
                        "%d and %d" % (version, PROTOCOL_VERSION, FILES_VERSION,
                                       CHECKED_TEXT_VERSION))
    return version


def recv_command(peer):
    """Return argv, a list of str, the first half of the one request, after its version.

    Each length is bounded before memory is taken. Raises WireError, Refused, ClientGone."""
    receive = peer.receive
    argv = []
    total = 0
    for _ in range(read_header(receive, b"ARGC", MAX_ARGUMENTS)):
        length = read_header(receive, b"ARGV", MAX_ARGUMENT_BYTES)
        total += length
        if total > MAX_COMMAND_BYTES:
            raise WireError(EXIT_PROTOCOL_ERROR, "command longer than %d bytes"
                            % MAX_COMMAND_BYTES)
        argv.append(os.fsdecode(read_exactly(receive, length, "ARGV")))
    return argv


def recv_programs(peer):
    """Return [(path, digest)] of the programs that compile on the client, absolute paths as bytes.

    Raises WireError, Refused, ClientGone."""
    page = read_exactly(peer.receive, read_header(peer.receive, b"PAGE", MAX_PAGE_BYTES), "PAGE")
    heads, paths = [], []
    read_entries(page, None, heads, paths)
    return [(path, entry.digest) for path, entry in Layout(heads, paths).files.items()]


def recv_source(peer, note_received):
    """Return a writable buffer with the source, the other half of the request.

    Anonymous memory becomes real as bytes arrive: who announces much and sends nothing takes
    nothing. note_received(count) is told now and then how many bytes are here.
    Raises WireError, Refused, ClientGone, MemoryError."""
    length = read_header(peer.receive, b"DOTI", MAX_SOURCE_BYTES)
    if not length:
        return bytearray()
    try:
        source = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(error.strerror) from None
    with memoryview(source) as view:
        at = noted = 0
        while at < length:
            if at - noted >= ACCOUNT_BYTES:
                noted = at
                note_received(at)
            count = peer.receive_into(view[at:at + CHUNK_BYTES])
            if not count:
                raise WireError(EXIT_TRUNCATED, "connection closed after %d of %d bytes of DOTI"
                                % (at, length))
            at += count
    return source


def pack_reply(status, messages, output, object_bytes, version=PROTOCOL_VERSION):
    """Return all of a reply by text up to the object itself. messages, output: the compiler's
    stderr and stdout (buffers); status: raw wait status; version: of the protocol."""
    return b"".join((pack_header(b"DONE", version), pack_header(b"STAT", status),
                     pack_header(b"SERR", len(messages)), messages,
                     pack_header(b"SOUT", len(output)), output,
                     pack_header(b"DOTO", object_bytes)))


def pack_answer(status, messages, output, note, files):
    """Return all of an answer by files up to the first file. status: raw wait status; messages,
    output: stderr and stdout (buffers); note: bytes; files: how many follow."""
    return b"".join((pack_header(b"DONE", FILES_VERSION), pack_header(b"STAT", status),
                     pack_header(b"SERR", len(messages)), messages,
                     pack_header(b"SOUT", len(output)), output,
                     pack_header(b"NOTE", len(note)), note, pack_header(b"FILC", files)))


def send_reply(peer, status, messages, output, object_path):
    """Send the reply of a compiler that ran; the object only if it succeeded.

    Raises ClientGone, Refused if there is no object or it is too large, OSError."""
    if status:
        peer.send(pack_reply(status, messages, output, 0, peer.version))
        return
    try:
        fd = os.open(object_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise Refused(EXIT_DISTCC_FAILED, "the compiler made no output") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Refused(EXIT_DISTCC_FAILED, "the compiler's output is no file")
        size = os.fstat(fd).st_size
        if size > MAX_OBJECT_BYTES:
            raise Refused(EXIT_IO_ERROR, "an object of %d bytes cannot be sent" % size)
        head = pack_reply(status, messages, output, size, peer.version)
        if size <= SMALL_OBJECT_BYTES:
            peer.send(head + os.read(fd, size))
        else:
            peer.send(head)
            peer.send_file(fd, size)
    finally:
        os.close(fd)


def send_refusal(peer, code, reason):
    """Answer that the job was not done: `code` in the status, the reason as a message line."""
    text = ("distccd: %s\n" % reason).encode("utf-8", "backslashreplace")
    if peer.by_files:
        peer.send(pack_answer(code << 8, text, b"", peer.note(), 0))
    else:
        peer.send(pack_reply(code << 8, text, b"", 0, peer.version))


# -------------------------------------------------------------------------------------------
# Job: directory, rebuilt command, compile, clean
# JobDirectory compiler_argv Progress Session Worker
# -------------------------------------------------------------------------------------------

def temporary_directory():
    """Return the directory that holds the jobs' own, an absolute path."""
    return os.path.abspath(os.environ.get("TMPDIR") or "/tmp")


class JobDirectory:
    """A directory for one job, locked while the job lives and removed when it ends.

    path: str, None until it is made. The lock tells sweep_directories that it is in use, in
    whatever process, container or namespace."""

    def __init__(self):
        self.path = self.fd = None

    def make(self):
        """Make it. Raises OSError."""
        prefix = SAVED_PREFIX if os.environ.get("DISTCC_SAVE_TEMPS") == "1" else JOB_PREFIX
        path = os.path.join(temporary_directory(),
                            "%s%d_%s" % (prefix, os.getpid(), os.urandom(6).hex()))
        os.mkdir(path, 0o700)
        self.path = path
        self.fd = os.open(path, os.O_RDONLY)
        fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self):
        """Remove it with all that is in it, unless the environment says to keep it."""
        if self.path is not None and os.environ.get("DISTCC_SAVE_TEMPS") != "1":
            remove_tree(self.path)
        if self.fd is not None:
            os.close(self.fd)
        self.path = self.fd = None


JOB_NAME = re.compile(JOB_PREFIX + r"([1-9][0-9]{0,9})_[0-9a-f]{12}", re.ASCII)


def remove_tree(path):
    """Remove a directory and what is in it; what cannot be removed is logged."""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    remove_tree(entry.path)
                else:
                    os.unlink(entry.path)
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        log("error", "cannot remove %s: %s" % (printable(path), error.strerror))


def sweep_directories(pid=None):
    """Remove the directories of jobs that died without cleaning; with `pid` only that process's.

    One that is ours, unlocked and not just made has no living job. What only begins like one is
    left alone."""
    top = temporary_directory()
    try:
        names = os.listdir(top)
    except OSError:
        return
    for name in names:
        found = JOB_NAME.fullmatch(name)
        if found and (pid is None or int(found.group(1)) == pid):
            sweep_one(os.path.join(top, name), 0 if pid is not None else STALE_JOB_S)


def sweep_one(path, least_age_s):
    """Remove one job's directory if it is older than that and no job has it locked."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        facts = os.fstat(fd)
        if facts.st_uid == os.geteuid() and time.time() - facts.st_mtime >= least_age_s:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(path)
    except OSError:
        pass                            # locked: its job lives
    finally:
        os.close(fd)


OUTPUT_NAMES = {"-c": "output.o", "-S": "output.s"}


def compiler_argv(command, compiler, family, source, output):
    """Return the words that run the compiler. source: "-" or a path; output: a path."""
    argv = [compiler] + command.options
    if family == "gcc":
        argv.append("-pipe")            # the assembler works while the compiler does
        # gcc opens the file that a line marker names to quote the line, whatever file that is.
        # (clang quotes the text that it was given.) Last, so that no option undoes it, and after
        # -pipe, so that an option that takes the next word does not swallow it.
        argv.append("-fno-diagnostics-show-caret")
    if family == "clang" and command.language != "assembler":
        # clang names its unit after the main file, gcc after the line markers
        argv += ["-Xclang", "-main-file-name", "-Xclang", command.source]
    return argv + ["-x", command.language, command.action, "-o", output, source]


class Progress:
    """What is told of a connection to the process that accepted it; here nobody listens."""

    def note_group(self, group):
        """The process group of the connection's compiler; 0 when that has ended."""

    def note_whole(self):
        """The request is whole."""

    def note_received(self, count):
        """So many bytes of the request have come. May raise Refused: there is no room."""


class Session:
    """One connection, served to its end.

    worker: the Worker; peer; progress. title: what the log calls the job. run: the job's Compile
    while there is one. at_work: whether the request is whole. Where a stop would leave something
    behind (a process, half an answer) unstoppable is true."""

    def __init__(self, worker, peer, progress):
        self.worker, self.peer, self.progress = worker, peer, progress
        self.options, self.places = worker.options, worker.places
        self.title = ""
        self.run = None
        self.directory = JobDirectory()
        self.at_work = self.unstoppable = False

    def check_stop(self):
        """Raise Refused if the job must end now."""
        if self.worker.stopping > int(self.at_work):
            raise Refused(EXIT_DISTCC_FAILED, "the daemon is stopping")

    def serve(self, address):
        """Do what is asked and log it in one line. Never raises.

        address: the client's, to be checked; None where a super-server has checked it."""
        began, peer = time.monotonic(), self.peer
        level, outcome = "info", ""
        try:
            self.worker.session = self
            self.check_stop()
            if address is not None and not address_allowed(address, self.options.networks):
                raise Refused(EXIT_DISTCC_FAILED, "address %s is not served" % address)
            version = recv_version(peer)
            outcome = self.serve_files() if version == FILES_VERSION else self.serve_text()
        except ClientGone as error:
            level, outcome = "info", "client gone: %s" % error
        except Exception as error:
            # The one place that answers for all faults of a job, so that none ends in a traceback.
            level, outcome = self.answer_fault(error)
        self.worker.session = None
        log(level, "%s: %s%s, %d bytes in, %d out, %.3f s" % (
            peer.name, self.title, outcome, peer.received, peer.sent, time.monotonic() - began))

    def answer_fault(self, error):
        """Tell the client why its job was not done; return (level, text) for the log."""
        self.unstoppable = True
        peer = self.peer
        level, code, reason = explain_fault(error)
        if not peer.received and isinstance(error, WireError):
            return "debug", "closed without a request"
        try:
            if not peer.answering if peer.by_files else not peer.sent:
                send_refusal(peer, code, reason)
                peer.drain()
        except ClientGone:
            reason += " (and the client has gone)"
        return level, "refused (%d): %s" % (code, reason)

    def serve_files(self):
        """Serve a request by files, which takes a FilesSession."""
        raise Refused(EXIT_DISTCC_FAILED, "no jobs by files here")

    def serve_text(self):
        """Read a request by text, compile, reply; return the outcome for the log.

        Raises Refused, WireError, ClientGone, OSError, MemoryError; leaves nothing behind."""
        peer = self.peer
        programs = recv_programs(peer) if peer.version == CHECKED_TEXT_VERSION else []
        argv = recv_command(peer)
        self.title = printable(" ".join(argv[:1])) + ": "
        try:
            command = rebuild_command(argv)
            self.title = "%s %s: " % (printable(command.compiler), printable(command.source))
            compiler = find_compiler(command.compiler, self.worker.path,
                                     self.options.allow_compiler)
            check_own_programs(programs, self.worker.own_files(), self.options.allow_compiler)
        except Refused:
            recv_source(peer, self.progress.note_received)
            # or the answer would be lost in the reset that this would meet
            raise
        try:
            source = recv_source(peer, self.progress.note_received)
            source = self.check_source(command, compiler, source)
            self.take_place()
            return outcome_of(self.compile_job(command, compiler, source))
        finally:
            self.unstoppable = True
            self.end_compiler()
            self.directory.remove()
            self.release_place()

    def take_place(self):
        """Wait for a place, with a request that is whole. Raises ClientGone, Refused."""
        self.at_work = True
        self.progress.note_whole()
        if self.places:
            self.places.take(self.peer)

    def release_place(self):
        """Give the place back: a client that is slow to read must not hold it."""
        if self.places:
            self.places.release()

    def start_compiler(self, command, compiler, name):
        """Start the compiler on the source called name; "-" is its standard input.

        Raises OSError, Refused. To be called while `unstoppable`."""
        environment = dict(self.worker.environment, TMPDIR=self.directory.path)
        output = os.path.join(self.directory.path, OUTPUT_NAMES[command.action])
        argv = compiler_argv(command, compiler, self.family(command, compiler), name, output)
        log("debug", "%s: running %s" % (self.peer.name, printable(" ".join(argv), 2000)))
        self.run = Compile(argv, self.directory.path, environment, name == "-", self.peer)
        self.progress.note_group(self.run.process.pid)

    def family(self, command, compiler):
        """Return the compiler's family, found out once for a command."""
        if command.family is None:
            command.family = family_of(compiler, self.worker.environment)
        return command.family

    def end_compiler(self):
        """End what is left of the compiler, if it was started."""
        if self.run:
            self.unstoppable = True
            self.run.end()
            self.progress.note_group(0)
            self.run = None

    def check_source(self, command, compiler, source):
        """Return the buffers that are to be compiled for this source. Raises Refused if it could
        make the compiler read files, ClientGone. No place is needed for this."""
        family = self.family(command, compiler)
        end = time.monotonic() + CHECK_S

        def look():
            self.peer.watch(0)
            if time.monotonic() > end:
                raise Refused(EXIT_BAD_ARGUMENTS, "the source takes too long to look through")
        disarm_source(source, family != "gcc", look)
        if family == "clang" or command.language == "assembler":
            return [source]
        return [guard_source(source), source]

    def compile_job(self, command, compiler, source):
        """Have the source (buffers) compiled in the job's directory and reply; return the wait
        status."""
        self.unstoppable = True
        self.directory.make()
        name = write_source(self.directory.path, source) if self.options.no_fifo else "-"
        self.start_compiler(command, compiler, name)
        run = self.run
        self.unstoppable = False
        self.check_stop()
        if run.stdin:
            widen_socket(run.stdin, sum(map(len, source)), self.options.jobs)
        status = run.run([] if self.options.no_fifo else source, self.options.job_lifetime)
        self.end_compiler()
        self.release_place()
        blame_machine(status, run.messages["stderr"])
        send_reply(self.peer, status, run.messages["stderr"], run.messages["stdout"],
                   os.path.join(self.directory.path, OUTPUT_NAMES[command.action]))
        return status


def check_own_programs(programs, own, allowed):
    """Raise Refused (110) unless this machine has the same programs at the same paths: another
    compiler would make another object. programs: as recv_programs gives them; own: OwnFiles;
    allowed: of --allow-compiler. Nobody learns the digest of anything but a compiler's part."""
    def check(path, _):
        if not program_allowed(path, allowed) \
                or not program_allowed(os.path.realpath(path), allowed):
            raise Refused(EXIT_COMPILER_MISSING, "%s is no part of a compiler" % printable(path))

    for path, digest in programs:
        facts = own.facts_of(path, check)
        if facts is None or facts[0] != digest:
            raise Refused(EXIT_COMPILER_MISSING, "%s %s this machine" % (
                printable(path), "is missing on" if facts is None else "differs from the one on"))
    own.save()


def outcome_of(status):
    """Return what the log says of a raw wait status."""
    return "signal %d" % status if status & 0xff else "exit %d" % (status >> 8)


class Worker:
    """What serves connections, one at a time: the options, the PATH and the places.

    session: the Session that is being served, or None. stopping counts the requests to stop. The
    first one ends a session that has no whole request yet; one that is at work may finish for
    some seconds, then a second one ends it."""

    session_class = Session

    def __init__(self, options, places=None):
        """places: Places, or None where one process serves one job at a time."""
        self.options, self.places = options, places
        self.path = clean_path(os.environ.get("PATH") or os.defpath)
        self.environment = {"PATH": os.pathsep.join(self.path), "LC_ALL": "C.UTF-8",
                            RECURSION_GUARD: str(RECURSION_LIMIT)}
        self.session = None
        self.stopping = 0
        self.own = OwnFiles(own_files_path(options))

    def own_files(self):
        """Return the OwnFiles that tell what this machine's programs are."""
        return self.own

    def handle_stop(self):
        """For signal handlers: a request to stop. Raises Refused in the session that it ends."""
        self.stopping += 1
        if self.stopping == 1:
            signal.setitimer(signal.ITIMER_REAL, STOP_GRACE_S)      # brings the second one
        if self.session and not self.session.unstoppable:
            self.session.check_stop()

    def serve(self, peer, address, progress=Progress()):
        """Serve one connection to its end; see Session.serve. progress: see Progress."""
        self.session_class(self, peer, progress).serve(address)


# What a compiler says (in English: LC_ALL is set) when not the source is at fault but this
# machine. That the source can say it too (#error) does no harm: the client compiles it itself.
MACHINE_FAULTS = (
    (b"No space left on device", EXIT_IO_ERROR), (b"Disk quota exceeded", EXIT_IO_ERROR),
    (b"Input/output error", EXIT_IO_ERROR), (b"Cannot create temporary file", EXIT_IO_ERROR),
    (b"File size limit exceeded", EXIT_IO_ERROR), (b"File too large", EXIT_IO_ERROR),
    (b"out of memory allocating", EXIT_OUT_OF_MEMORY), (b"memory exhausted", EXIT_OUT_OF_MEMORY),
    (b"Cannot allocate memory", EXIT_OUT_OF_MEMORY), (b"std::bad_alloc", EXIT_OUT_OF_MEMORY),
    (b"Killed signal terminated program", EXIT_OUT_OF_MEMORY))


def blame_machine(status, messages):
    """Raise Refused if a compiler failed for want of this machine's disk or memory.

    status: raw wait status; messages: its stderr."""
    if not status:
        return
    for words, code in MACHINE_FAULTS:
        if words in messages:
            raise Refused(code, "the compiler failed on this machine: %s" % words.decode())


def write_source(directory, source):
    """Write the source into the job's directory; return the file's path. Raises OSError."""
    path = os.path.join(directory, "input")
    with open(path, "wb", buffering=0) as file:
        for piece in source:
            view = memoryview(piece)
            while view.nbytes:
                view = view[file.write(view):]
    return path


def explain_fault(error):
    """Return (level for the log, exit code, reason) for whatever ended a job."""
    if isinstance(error, (Refused, WireError)):
        return "warning", error.code, str(error)
    if isinstance(error, MemoryError):
        return "error", EXIT_OUT_OF_MEMORY, "out of memory"
    if isinstance(error, OSError):
        return "error", EXIT_IO_ERROR, place_of(error)
    return "critical", EXIT_DISTCC_FAILED, place_of(error)


# -------------------------------------------------------------------------------------------
# By files: the command as it came, in a root of the client's files
# recv_request Receiver Layout read_entries FilesJob check_program send_result FilesSession
# FilesWorker
# -------------------------------------------------------------------------------------------

HEAD = re.compile(rb"f([-xl]) ([0-9a-f]{64}) (0|[1-9a-f][0-9a-f]{0,15}) (0|-?[1-9][0-9]{0,18})"
                  rb" ([0-9a-f]{1,32})")
# In paths joined by zero bytes: one that is not absolute, a name that is empty, . or .., too long.
BAD_PATH = re.compile(rb"(?:\A|\0)(?!/)|//|/\.\.?(?:[/\0]|\Z)|/(?:\0|\Z)|[^/\0]{256}")
LONGEST_PATH_BYTES = MAX_PATH_BYTES - 256       # our own directory's name comes before it
MOST_NAMES_IN_PATH = 200
MOST_BYTES_OF_PATHS = 16 * 1024 * 1024
MOST_ALIKE = 4096                       # names of one file, and files that are equal in all
MOST_IDLE_NAMES = 8192                  # in a tree that is left: removing so many takes 0.1 s
REFERENCE = re.compile(rb"([0-9a-f]{64}) ([0-9a-f]{1,16})")
DIGEST = re.compile(rb"[0-9a-f]{64}")
MOST_REFERENCES = 8192
MOST_PAGES_BYTES = 64 * 1024 * 1024
# A page that is kept: of each entry at most a link's target and a path.
MOST_KEPT_PAGE_BYTES = PAGE_ENTRIES * 2 * (MAX_PATH_BYTES + 1)
MAX_DEFLATED_BYTES = MAX_FILE_BYTES + MAX_FILE_BYTES // 512
FETCH_WAIT_S = 5.0                      # so long a job waits for what others fetch, in all
FETCH_WAIT_OVER_SSH_S = 1800.0          # a compiler on a slow line: twice would take twice as long
FETCH_POLL_MS = 20
# What a job may have this machine copy and digest, of which its request says little: toolchains
# have some 300 MB, and headers that are this machine's own as well 10 MB.
MOST_COPIED_BYTES = {b"code": 1024 * 1024 * 1024, b"plain": 256 * 1024 * 1024}
MOST_READ_BYTES = {b"code": 1024 * 1024 * 1024, b"plain": 64 * 1024 * 1024}
BYTES_OF_A_FILE = 4096                  # that each file costs besides its content
COMPILER_TEMPORARY = re.compile(rb"/tmp/(cc[A-Za-z0-9]{6})[^/]*")
SHARED_LIBRARY = re.compile(rb"[^/]+\.so(?:\.[\w.+-]+)?")
# What the loader of programs obeys, which is no business of a compiler.
LOADER_VARIABLES = re.compile(rb"LD_.*|GCONV_PATH|GLIBC_TUNABLES|MALLOC_.*|RES_OPTIONS")
# What compilers read of the environment, besides LC_..., and no client sends more. Others name
# programs and options: COMPILER_PATH, CXX_MODULE_MAPPER, CCC_OVERRIDE_OPTIONS.
VARIABLES = frozenset(b"""LANG LANGUAGE TZ SOURCE_DATE_EPOCH GCC_COLORS GCC_URLS TERM_URLS TERM
    COLUMNS NO_COLOR CLICOLOR_FORCE PWD PATH CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH
    OBJC_INCLUDE_PATH OBJCPLUS_INCLUDE_PATH LIBRARY_PATH COLORTERM VTE_VERSION WT_SESSION
    KONSOLE_VERSION TERM_PROGRAM POSIXLY_CORRECT
    DEPENDENCIES_OUTPUT SUNPRO_DEPENDENCIES""".split())

FilesRequest = collections.namedtuple(
    "FilesRequest", "flags argv directory environment umask page references")
FileEntry = collections.namedtuple("FileEntry", "path kind digest size mtime inode")
Content = collections.namedtuple("Content", "path size is_elf")


def recv_text(receive, token, most):
    """Read a packet whose body is text without zero bytes; return the bytes."""
    text = read_exactly(receive, read_header(receive, token, most), token.decode())
    if b"\0" in text:
        raise WireError(EXIT_PROTOCOL_ERROR, "a zero byte in %s" % token.decode())
    return text


def recv_texts(receive, count_token, most_texts, token):
    """Read a count and so many packets of text; return them as a list, bounded in all."""
    texts, total = [], 0
    for _ in range(read_header(receive, count_token, most_texts)):
        texts.append(recv_text(receive, token, MAX_ARGUMENT_BYTES))
        total += len(texts[-1])
        if total > MAX_COMMAND_BYTES:
            raise WireError(EXIT_PROTOCOL_ERROR, "%s packets of more than %d bytes"
                            % (token.decode(), MAX_COMMAND_BYTES))
    return texts


def recv_request(peer):
    """Return the FilesRequest that follows DIST 64, all but the contents.

    Raises WireError, Refused, ClientGone."""
    receive = peer.receive
    flags = read_header(receive, b"FLAG", 0xffffffff)
    argv = recv_texts(receive, b"ARGC", MAX_ARGUMENTS, b"ARGV")
    directory = recv_text(receive, b"CWDD", MAX_PATH_BYTES)
    environment = {}
    for variable in recv_texts(receive, b"ENVC", MAX_VARIABLES, b"ENVV"):
        name, equals, value = variable.partition(b"=")
        if not name or not equals:
            raise WireError(EXIT_PROTOCOL_ERROR, "no NAME=VALUE: %s" % printable(variable))
        if not LOADER_VARIABLES.fullmatch(name):
            environment[name] = value
    umask = read_header(receive, b"UMSK", 0o777)
    page = read_exactly(receive, read_header(receive, b"PAGE", MAX_PAGE_BYTES), "PAGE")
    references = read_exactly(receive, read_header(receive, b"LIST", MAX_LIST_BYTES), "LIST")
    if not argv or not argv[0] or directory[:1] != b"/":
        raise WireError(EXIT_PROTOCOL_ERROR, "no command, or no working directory")
    return FilesRequest(flags, argv, directory, environment, umask, page,
                        read_references(references))


def read_references(text):
    """Return [(digest, mask)] of the lines of LIST; mask is a number. Raises WireError."""
    references = []
    for line in text.split(b"\n"):
        found = REFERENCE.fullmatch(line)
        if found:
            references.append((found.group(1), int(found.group(2), 16)))
        elif line:
            raise WireError(EXIT_PROTOCOL_ERROR, "no reference to a page: %s" % printable(line))
    if len(references) > MOST_REFERENCES:
        raise WireError(EXIT_PROTOCOL_ERROR, "%d pages" % len(references))
    return references


class Receiver:
    """Takes contents into a directory (bytes) of their own, each checked by its digest.

    contents: {digest: Content}. most_bytes: of all together. check_room(size) raises Refused
    where that many bytes more are too many."""

    def __init__(self, peer, directory, most_bytes, check_room):
        self.peer, self.directory, self.check_room = peer, directory, check_room
        self.left = most_bytes
        self.contents = {}
        self.used = set()

    def fresh(self, digest):
        """Tell whether a content has come and is asked for the first time."""
        if digest not in self.contents or digest in self.used:
            return False
        self.used.add(digest)
        return True

    def recv_contents(self):
        """Take contents until SENT. Raises WireError, Refused, ClientGone, OSError."""
        receive = self.peer.receive
        while True:
            header = read_exactly(receive, HEADER_BYTES, "BODY, ZBDY or SENT")
            token = header[:4]
            if token not in (b"BODY", b"ZBDY", b"SENT"):
                raise WireError(EXIT_PROTOCOL_ERROR, "expected BODY, ZBDY or SENT, got %r"
                                % header)
            number = read_header(io.BytesIO(header).read, token, MAX_DEFLATED_BYTES)
            if token == b"SENT":
                return
            self.recv_content(number, token == b"ZBDY")

    def recv_content(self, length, deflated):
        """Take one content whose packet has a body of `length` bytes."""
        head = DIGEST_DIGITS + (8 if deflated else 0)
        if length < head:
            raise WireError(EXIT_PROTOCOL_ERROR, "a content without a digest")
        digest = read_exactly(self.peer.receive, DIGEST_DIGITS, "a digest")
        if not DIGEST.fullmatch(digest):
            raise WireError(EXIT_PROTOCOL_ERROR, "no digest: %s" % printable(digest))
        size = length - head
        if deflated:
            size = read_header(io.BytesIO(b"ZBDY" + read_exactly(
                self.peer.receive, 8, "a length")).read, b"ZBDY", MAX_FILE_BYTES)
        if size > min(self.left, MAX_FILE_BYTES) or len(self.contents) > MAX_ENTRIES:
            raise WireError(EXIT_PROTOCOL_ERROR, "a content of %d bytes is too much" % size)
        self.left -= size
        self.check_room(size)
        pieces = self.recv_pieces(length - head)
        self.store_content(digest, size, inflate(pieces, size) if deflated else pieces)

    def recv_pieces(self, length):
        """Yield the next `length` bytes of the connection, as they come."""
        while length:
            piece = self.peer.receive(min(length, CHUNK_BYTES))
            if not piece:
                raise WireError(EXIT_TRUNCATED, "connection closed, %d bytes of a content missing"
                                % length)
            length -= len(piece)
            self.peer.send_life()       # what the client has sent may be on its way for long
            yield piece

    def store_content(self, digest, size, pieces):
        """Write a content to a file named after its digest. Raises WireError if that differs."""
        path = self.directory + b"/" + digest
        state = blake2b(digest_size=DIGEST_DIGITS // 2)
        count, start = 0, b""
        fd = os.open(path + b".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            for piece in pieces:
                start += bytes(piece[:len(ELF_MAGIC) - len(start)])
                state.update(piece)
                count += len(piece)
                write_all(fd, piece)
        finally:
            os.close(fd)
        if count != size or state.hexdigest().encode() != digest:
            raise WireError(EXIT_PROTOCOL_ERROR, "a content does not fit its digest %s"
                            % digest.decode())
        os.rename(path + b".new", path)
        self.contents[digest] = Content(path, size, start == ELF_MAGIC)


def write_all(fd, data):
    """Write all of data (a buffer) to a file. Raises OSError."""
    view = memoryview(data)
    while view.nbytes:
        view = view[os.write(fd, view):]


def inflate(pieces, size):
    """Yield what deflated pieces hold, at most `size` bytes. Raises WireError."""
    state = zlib.decompressobj()
    left = size
    try:
        for piece in pieces:
            while piece:
                found = state.decompress(piece, CHUNK_BYTES)
                left -= len(found)
                if left < 0:
                    raise WireError(EXIT_PROTOCOL_ERROR, "a content is longer than it says")
                yield found
                piece = state.unconsumed_tail
                if state.eof and (piece or state.unused_data):
                    raise WireError(EXIT_PROTOCOL_ERROR, "something follows a deflated content")
        if not state.eof:
            raise WireError(EXIT_PROTOCOL_ERROR, "a deflated content is cut")
    except zlib.error:
        raise WireError(EXIT_PROTOCOL_ERROR, "a content is not deflated") from None


class Layout:
    """What is to be at which path: folders (a set, with all parents; b"" is the root), links
    {path: target}, files {path: FileEntry}."""

    def __init__(self, heads, paths):
        """heads, paths: lists of bytes, an entry's two halves each. Raises WireError."""
        if b"/" in paths:               # it is there
            kept = [pair for pair in zip(heads, paths) if pair != (b"d", b"/")]
            heads, paths = [head for head, _ in kept], [path for _, path in kept]
        check_paths(paths)
        self.folders, self.links, self.files = {b"", b"/dev"}, {}, {}
        kinds = {}
        for head, path in zip(heads, paths):
            if kinds.setdefault(path, head) != head:
                raise WireError(EXIT_PROTOCOL_ERROR, "two entries for %s" % printable(path))
            letter = head[:1]
            if letter == b"f":
                found = HEAD.fullmatch(head)
                if not found:
                    raise WireError(EXIT_PROTOCOL_ERROR, "no entry: %s" % printable(head))
                self.files[path] = FileEntry(path, *found.groups())
            elif letter == b"s" and 1 < len(head) <= MAX_PATH_BYTES:
                self.links[path] = head[1:]
            elif head == b"d":
                self.folders.add(path)
            else:
                raise WireError(EXIT_PROTOCOL_ERROR, "no entry: %s" % printable(head))
        for device in DEVICES:          # ours are the same
            self.files.pop(device, None)
            self.links.pop(device, None)
        if b"/tmp" not in self.links:
            self.folders.add(b"/tmp")
        self.add_parents()

    def add_parents(self):
        """Add the directories on the way to anything. Raises WireError if one is another thing,
        or if there are too many."""
        known = set(self.folders)
        left = MOST_BYTES_OF_PATHS - sum(map(len, known))
        for path in [*self.files, *self.links, *self.folders]:
            left -= len(path)
            parent = path[:path.rfind(b"/")] if path else path
            while parent not in known:
                known.add(parent)
                left -= len(parent)
                if left < 0 or len(known) + len(self.files) + len(self.links) > MAX_ENTRIES:
                    raise WireError(EXIT_PROTOCOL_ERROR, "too many directories are needed")
                parent = parent[:parent.rfind(b"/")] if parent else parent
        if left < 0:
            raise WireError(EXIT_PROTOCOL_ERROR, "paths of more than %d bytes"
                            % MOST_BYTES_OF_PATHS)
        self.folders = known
        for path in self.folders:
            if path in self.files or path in self.links or path in DEVICES:
                raise WireError(EXIT_PROTOCOL_ERROR, "an entry lies below %s, which is no "
                                "directory" % printable(path))


def check_paths(paths):
    """Raise WireError unless all paths (list of bytes) are absolute, normal and not too long."""
    if len(paths) > MAX_ENTRIES:
        raise WireError(EXIT_PROTOCOL_ERROR, "%d entries, more than %d"
                        % (len(paths), MAX_ENTRIES))
    found = paths and BAD_PATH.search(b"\0".join(paths))
    if found:
        bad = next(path for path in paths if BAD_PATH.search(path))
        raise WireError(EXIT_PROTOCOL_ERROR, "not an absolute, normal path: %s" % printable(bad))
    for path in paths:
        if len(path) > LONGEST_PATH_BYTES or path.count(b"/") > MOST_NAMES_IN_PATH:
            raise WireError(EXIT_PROTOCOL_ERROR, "too long a path: %s" % printable(path))


def read_entries(page, mask, heads, paths):
    """Add the entries of a page to two lists: all, or those whose bits are set in mask.

    Raises WireError for a page that is none, a mask with bits beyond the page, and too many."""
    if len(paths) + (page.count(b"\0") // 2 if mask is None else 0) > MAX_ENTRIES:
        raise WireError(EXIT_PROTOCOL_ERROR, "more than %d entries" % MAX_ENTRIES)
    pieces = page.split(b"\0")
    if pieces.pop() or len(pieces) % 2:
        raise WireError(EXIT_PROTOCOL_ERROR, "a page is cut")
    if mask is None:
        heads += pieces[0::2]
        paths += pieces[1::2]
        return
    if mask >> (len(pieces) // 2):
        raise WireError(EXIT_PROTOCOL_ERROR, "a mask has bits beyond its page")
    while mask:
        at = 2 * ((mask & -mask).bit_length() - 1)
        heads.append(pieces[at])
        paths.append(pieces[at + 1])
        mask &= mask - 1


class FilesJob:
    """One job by files: from its request to its results.

    lacked: how many contents came for it."""

    def __init__(self, peer, roots, options):
        """roots: Roots; options: the daemon's."""
        self.peer, self.roots, self.store = peer, roots, roots.store
        self.foreign = options.foreign_programs         # whether the client's own may run
        self.allowed = options.allow_compiler
        self.directory = RootDirectory(self.store)
        self.request = self.receiver = self.layout = None
        self.fetch_wait_s = FETCH_WAIT_OVER_SSH_S if options.socket else FETCH_WAIT_S
        self.lacked = self.grown = 0
        self.lower_fds, self.files = {}, {}
        self.patient_until = None       # time.monotonic(): how long others are waited for
        self.copied_left = dict(MOST_COPIED_BYTES)
        self.read_left = dict(MOST_READ_BYTES)
        self.whole = False              # whether the tree is as the layout says

    def recv(self):
        """Read the request with the contents that come along. Raises WireError, Refused,
        ClientGone, OSError."""
        self.request = recv_request(self.peer)
        if not self.foreign:
            self.request = keep_known_variables(self.request)
        self.directory.make([digest for digest, _ in self.request.references],
                            self.roots.most_idle)
        self.receiver = Receiver(self.peer, self.directory.path + b"/in",
                                 max(self.store.limit_bytes, MAX_FILE_BYTES),
                                 self.store.check_room)
        self.receiver.recv_contents()

    def lay_out(self):
        """Make the tree of the job, with whatever must be asked for. Raises as recv() does."""
        heads, paths = [], []
        read_entries(self.request.page, None, heads, paths)
        for page, mask in self.read_pages():
            read_entries(page, mask, heads, paths)
        self.layout = Layout(heads, paths)
        if not self.foreign:
            check_program(self.request, self.layout, self.allowed)
            check_links(self.layout)
        self.place_files()
        self.store.own.save()
        if not self.foreign:
            check_options(self.request, self.layout, self.directory.path + b"/lower")
            check_specs(self.layout, self.directory.path + b"/lower")

    def read_pages(self):
        """Return (page, mask) of each reference; pages that are not here are asked for."""
        pages = {}
        times = collections.Counter(digest for digest, _ in self.request.references)
        left = MOST_PAGES_BYTES

        def have(digest):
            """Read a page from the store, or from what came."""
            nonlocal left
            if digest in self.receiver.contents:
                self.store_page(digest)
            page = self.store.read_page(digest)
            if page is not None:
                left -= len(page) * times[digest]
                if left < 0:
                    raise WireError(EXIT_PROTOCOL_ERROR, "pages of more than %d bytes"
                                    % MOST_PAGES_BYTES)
                pages[digest] = page
            return page is not None

        missing = [digest for digest in dict(self.request.references) if not have(digest)]
        self.fetch(missing, have)
        return [(pages[digest], mask) for digest, mask in self.request.references]

    def store_page(self, digest):
        """Move a page from what came into the store."""
        content = self.receiver.contents[digest]
        if content.size > MOST_KEPT_PAGE_BYTES:
            raise WireError(EXIT_PROTOCOL_ERROR, "a page of %d bytes" % content.size)
        self.store.add(content.path, b"pages/%s/%s" % (digest[:2], digest))
        if self.receiver.fresh(digest):
            self.lacked += 1
            self.grown += content.size

    def place_files(self):
        """Have all files in the tree, and nothing else. Those that the tree had are there."""
        plan, twins = self.plan_files()
        self.files = {entry.path: source for entry, source in plan + twins}
        old = self.directory.tree.files
        self.directory.shape(Tree(self.layout.folders, self.layout.links, self.files))
        missing = {}
        for entry, source in plan:
            if old.get(entry.path) != source and not self.link(source, entry.path):
                missing.setdefault(entry.digest, []).append((entry, source))
        if missing:
            missing = {digest: wanted for digest, wanted in missing.items()
                       if not self.place_variants(wanted)}

            def have(digest):
                """Place a content from the store or from what came."""
                return self.place_variants(missing[digest])

            self.fetch(list(missing), have)
        for entry, source in twins:
            if old.get(entry.path) != source:
                os.link(self.first_names[entry.inode][1:], entry.path[1:])
        for fd in self.lower_fds.values():
            os.close(fd)
        self.lower_fds = {}
        self.whole = True

    def plan_files(self):
        """Return two lists of (FileEntry, name in the store): an entry for each inode of the
        client, which gets one of ours, and the further names of these."""
        plan, twins = [], []
        used, inodes, names_of = {}, {}, collections.Counter()
        for entry in self.layout.files.values():
            if not self.foreign and entry.kind != b"-":
                entry = self.own_program(entry)
            name = store_name(entry)
            twin = inodes.get(entry.inode)
            if twin is None:
                count = used[name] = used.get(name, -1) + 1
                if count > MOST_ALIKE:
                    raise WireError(EXIT_PROTOCOL_ERROR, "more than %d files like %s"
                                    % (MOST_ALIKE, printable(entry.path)))
                source = name if not count else b"%s.%d" % (name, count)
                inodes[entry.inode] = entry.path, name, source
                plan.append((entry, source))
            elif twin[1] != name:
                raise WireError(EXIT_PROTOCOL_ERROR, "%s and %s are said to be one file, and "
                                "differ" % (printable(twin[0]), printable(entry.path)))
            else:
                twins.append((entry, twin[2]))
                names_of[entry.inode] += 1
        if max(names_of.values(), default=0) > MOST_ALIKE:
            raise WireError(EXIT_PROTOCOL_ERROR, "a file has more than %d names" % MOST_ALIKE)
        self.first_names = {inode: path for inode, (path, _, _) in inodes.items()}
        return plan, twins

    def own_program(self, entry):
        """Return the entry that stands for a program or library: itself if this machine's own
        file at that path is the same, else, for a library, this machine's. Raises Refused.

        That must be a library indeed, or any file of this machine could be asked for."""
        path = entry.path
        is_library = is_library_name(path)
        if not is_library and (entry.kind == b"l" or not program_allowed(path, self.allowed)):
            raise Refused(EXIT_COMPILER_MISSING, "%s is %s" % (printable(path), (
                "no part of a compiler" if os.path.exists(path) else "missing on this machine")))
        facts = self.store.own.facts_of(path, self.check_own)
        if facts is None:
            raise Refused(EXIT_COMPILER_MISSING, "%s is missing on this machine" % printable(path))
        digest, size, mtime_ns = facts
        if digest == entry.digest:
            return entry
        if is_library:
            return entry._replace(digest=digest, size=b"%x" % size, mtime=b"%d" % mtime_ns)
        raise Refused(EXIT_COMPILER_MISSING, "%s differs from the one on this machine"
                      % printable(path))

    def check_own(self, path, size):
        """This machine's own program or library is about to be digested, which is remembered.
        Raises Refused unless it is one by what it is a link to, too, and a library by its
        content."""
        self.peer.watch(0)
        self.read_left[b"code"] -= size + BYTES_OF_A_FILE
        if self.read_left[b"code"] < 0:
            raise Refused(EXIT_IO_ERROR, "the job has more than %d bytes of programs"
                          % MOST_READ_BYTES[b"code"])
        real = os.path.realpath(path)
        good = is_library_name(real) and begins_elf(path) if is_library_name(path) else \
            program_allowed(real, self.allowed) or is_listed(path, self.allowed)
        if not good:
            raise Refused(EXIT_COMPILER_MISSING, "%s is no part of a compiler" % printable(path))

    def link(self, source, path):
        """Link a file of the store into the tree, where it is absent yet; tell whether the store
        has it."""
        folder, _, name = path.rpartition(b"/")
        fd = self.lower_fds.get(folder)
        if fd is None:
            if len(self.lower_fds) >= 64:
                os.close(self.lower_fds.pop(next(iter(self.lower_fds))))
            fd = self.lower_fds[folder] = os.open(
                folder[1:] or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.link(source, name, src_dir_fd=self.store.fd, dst_dir_fd=fd)
        except FileNotFoundError:
            return False
        except FileExistsError:
            pass                        # placed already
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            self.renew(source)
            os.link(source, name, src_dir_fd=self.store.fd, dst_dir_fd=fd)
        return True

    def renew(self, source):
        """A file of the store has as many names, in trees, as its file system allows one to have:
        put a copy in its place. Raises OSError, Refused, ClientGone."""
        stored = os.path.join(self.store.path, source)
        facts = os.stat(stored)
        path = self.copy(Content(stored, facts.st_size, False), source,
                         os.path.basename(source)[:DIGEST_DIGITS])
        os.chmod(path, facts.st_mode & 0o777)
        os.utime(path, ns=(facts.st_mtime_ns, facts.st_mtime_ns))
        os.rename(path, stored)

    def copy(self, content, source, digest):
        """Copy a content that this machine has; return the copy's path, which is in the job's own
        directory. source: its name in the store to be. Raises Refused when the job has too much
        copied, or when it is another content by now."""
        self.peer.watch(0)
        folder = source.partition(b"/")[0]
        self.copied_left[folder] -= content.size + BYTES_OF_A_FILE
        if self.copied_left[folder] < 0:
            raise Refused(EXIT_IO_ERROR, "the job has more than %d bytes copied"
                          % MOST_COPIED_BYTES[folder])
        self.store.check_room(content.size)
        path = self.directory.path + b"/in/copy"
        with open(content.path, "rb") as old, open(path, "wb") as new:
            if copy_digesting(old, new) != digest:
                raise Refused(EXIT_IO_ERROR, "%s was changed meanwhile" % printable(content.path))
        return path

    def place_variants(self, wanted):
        """Place files of one content, [(FileEntry, name in the store)], if it can be found here;
        tell whether it could."""
        return all([self.place_one(entry, source) for entry, source in wanted])

    def place_one(self, entry, source):
        """Put one file into the tree, by a copy if the store has it with another time only.

        Tell whether its content was found. Raises Refused if it is a program of the client's."""
        if self.link(source, entry.path):
            return True
        content = self.find_content(entry)
        if content is None:
            return False
        if content.is_elf and source.startswith(b"plain/"):
            number = source[len(store_name(entry)):]
            if not self.foreign:
                entry = self.own_program(entry)
            source = self.files[entry.path] = b"code" + store_name(entry)[5:] + number
            if self.link(source, entry.path):
                return True
            content = self.find_content(entry)
        if content is None or content.size != int(entry.size, 16):
            raise WireError(EXIT_PROTOCOL_ERROR, "%s has not the size that its entry says"
                            % printable(entry.path))
        self.take_in(content, entry, source)
        return self.link(source, entry.path)

    def find_content(self, entry):
        """Return the Content of an entry: what came, what the store has with another time, or
        this machine's own file; None if there is none."""
        if entry.digest in self.receiver.contents:
            return self.receiver.contents[entry.digest]
        for name in self.store.variants(entry.digest):
            path = os.path.join(self.store.path, name)
            return Content(path, size_in_name(name), begins_elf(path))
        size = int(entry.size, 16)
        share = b"plain" if entry.kind == b"-" else b"code"
        if share == b"code" and not self.foreign:
            facts = self.store.own.facts_of(entry.path, self.check_own)
            if facts is not None and facts[0] == entry.digest:
                return Content(entry.path, facts[1], begins_elf(entry.path))
        # Elsewhere it could be asked in this way whether somebody's file is what one guesses.
        elif (share == b"code" or entry.path.startswith(b"/usr/")) \
                and size <= self.read_left[share]:
            self.peer.watch(0)
            self.read_left[share] -= size + BYTES_OF_A_FILE
            if self.store.own.equals(entry.path, entry.digest, size):
                return Content(entry.path, size, begins_elf(entry.path))
        return None

    def take_in(self, content, entry, source):
        """Give a content its place in the store under the name `source`, with the entry's time.

        What came is moved there, once; anything else is copied."""
        path = content.path
        if self.receiver.fresh(entry.digest):
            self.lacked += 1
        else:
            path = self.copy(content, source, entry.digest)
        if source.startswith(b"plain/") and begins_elf(path):
            raise Refused(EXIT_DISTCC_FAILED, "%s is code, and was taken for none"
                          % printable(entry.path))
        # The loader of programs is a library that must be executable.
        os.chmod(path, 0o755 if source.startswith(b"code/") else 0o644)
        os.utime(path, ns=(int(entry.mtime), int(entry.mtime)))
        self.store.add(path, source)
        self.grown += content.size + BYTES_OF_A_FILE
        if path != content.path:
            os.unlink(path)

    def fetch(self, missing, have):
        """Get contents that the store lacks: from the client, or, when another job is fetching
        them already, from that. missing: digests; have(digest) takes a content that is here, and
        tells whether it is. Raises as recv() does."""
        if missing and self.patient_until is None:
            self.patient_until = time.monotonic() + self.fetch_wait_s
        while missing:
            patient = time.monotonic() < self.patient_until
            mine = [digest for digest in missing
                    if self.store.try_claim(digest) or not patient]
            try:
                needed = [digest for digest in mine if not have(digest)]
                if needed:
                    self.ask(needed)
                for digest in needed:
                    if not have(digest):
                        raise WireError(EXIT_PROTOCOL_ERROR, "%s was asked for and did not come"
                                        % digest.decode())
            finally:
                for digest in mine:
                    self.store.give_claim_up(digest)
            fetched = set(mine)
            missing = [digest for digest in missing if digest not in fetched]
            if missing:
                self.peer.watch(FETCH_POLL_MS)

    def ask(self, digests):
        """Have the client send contents."""
        self.peer.limit = time.monotonic() + SILENCES_PER_REQUEST * self.peer.silence_s
        self.peer.send(pack_header(b"NEED", DIGEST_DIGITS * len(digests)) + b"".join(digests))
        self.receiver.recv_contents()

    def start(self):
        """Start the command in its root; return the RootCompile. Raises NoRoot, OSError."""
        request = self.request
        self.directory.mount(self.roots.kernel, self.roots.upper_bytes)
        command = RootCommand(request.argv, request.directory, request.environment,
                              request.umask, bool(request.flags & FLAG_TERMINAL))
        return RootCompile(RootProcess(self.roots, self.directory, command), self.peer)

    def find_results(self):
        """Return [(absolute path, file of the upper layer or None, os.stat_result)] of what the
        command wrote or (None) removed, in order of paths. Raises Refused if that is too much."""
        results = []
        upper = self.directory.path + b"/top/upper"
        walk_upper(upper, len(upper), results)
        results = [result for result in results if not is_temporary(self.request, result[0])]
        if len(results) > MAX_RESULTS:
            raise Refused(EXIT_IO_ERROR, "the command wrote more than %d files" % MAX_RESULTS)
        sizes = [facts.st_size for _, file, facts in results if file is not None]
        if max(sizes, default=0) > MAX_FILE_BYTES or sum(sizes) > MAX_OBJECT_BYTES:
            raise Refused(EXIT_IO_ERROR, "the command wrote %d bytes" % sum(sizes))
        return sorted(results, key=lambda result: result[0])

    def finish(self):
        """Leave the tree for another job, or remove it. The client does not wait for this."""
        layout = self.layout
        if self.whole and len(layout.folders) + len(layout.links) + len(self.files) \
                <= MOST_IDLE_NAMES:
            try:
                self.directory.leave(Tree(layout.folders, layout.links, self.files),
                                     self.roots.most_idle)
            except (OSError, ValueError) as error:
                log("debug", "a tree is not kept: %s" % error)
        self.directory.remove()
        if self.grown:
            self.store.note_growth(self.grown)


def keep_known_variables(request):
    """Return a FilesRequest without the variables that compilers should not obey here."""
    return request._replace(environment={
        name: value for name, value in request.environment.items()
        if name in VARIABLES or name.startswith(b"LC_")})


def is_library_name(path):
    """Tell whether a path (bytes) is named as a shared library."""
    return SHARED_LIBRARY.fullmatch(path.rpartition(b"/")[2]) is not None


def store_name(entry):
    """Return the name in the store (bytes) of a FileEntry."""
    folder, mode = (b"plain", b"-") if entry.kind == b"-" else (b"code", b"x")
    return b"%s/%s/%s-%s-%s-%s" % (folder, entry.digest[:2], entry.digest, entry.size,
                                   entry.mtime, mode)


def copy_digesting(old, new):
    """Copy what is left of one open file to another; return its digest."""
    state = blake2b(digest_size=DIGEST_DIGITS // 2)
    while True:
        piece = old.read(CHUNK_BYTES)
        if not piece:
            return state.hexdigest().encode()
        state.update(piece)
        new.write(piece)


def walk_upper(directory, prefix, results):
    """Add what lies in a directory (bytes) of the upper layer to results, see find_results().

    Symbolic links, sockets and the like are left out: they cannot be sent, and no compile makes
    any. A whiteout, a device of the number 0, stands for what was removed."""
    if directory.count(b"/") > 2 * MOST_NAMES_IN_PATH or len(results) > MAX_RESULTS:
        raise Refused(EXIT_IO_ERROR, "the command wrote too much, or too deep below /")
    with os.scandir(directory) as entries:
        for entry in entries:
            path = entry.path[prefix:]
            if entry.is_dir(follow_symlinks=False):
                walk_upper(entry.path, prefix, results)
            elif entry.is_file(follow_symlinks=False):
                results.append((path, entry.path, entry.stat(follow_symlinks=False)))
            elif stat.S_ISCHR(entry.stat(follow_symlinks=False).st_mode):
                results.append((path, None, None))


def is_temporary(request, path):
    """Tell whether a file that a command left (bytes) is a temporary one of the compiler's: its
    name is one, and the request does not say it. A response file may say any."""
    found = COMPILER_TEMPORARY.fullmatch(path)
    words = [*request.argv[1:], *request.environment.values()]
    return bool(found) and not any(found.group(1) in word or word[:1] == b"@" for word in words)


def resolve_links(layout, path):
    """Return where an absolute path (bytes) leads in a Layout, as a root has it; b"" where links
    lead round in circles."""
    names = path.split(b"/")[::-1]
    at, followed = b"", 0
    while names:
        name = names.pop()
        if name == b"..":
            at = at[:max(0, at.rfind(b"/"))]
        elif name not in (b"", b"."):
            target = layout.links.get(at + b"/" + name)
            if target is None:
                at += b"/" + name
                continue
            followed += 1
            if followed > 40:
                return b""
            at = b"" if target[:1] == b"/" else at
            names += target.split(b"/")[::-1]
    return at


def find_program(request, layout):
    """Return the path (bytes) of the file that a request's first word leads to; None if there
    is none among its entries."""
    program = request.argv[0]
    places = [b""] if b"/" in program else request.environment.get(b"PATH", b"").split(b":")
    for place in places:
        path = place + b"/" + program if place else program
        path = resolve_links(layout, path if path[:1] == b"/" else request.directory + b"/" + path)
        entry = layout.files.get(path)
        if entry is not None and entry.kind == b"x":
            return path
    return None


# Options that load code or name programs: a second fence, for no code of the client's is there.
LOADING_OPTION = re.compile(
    rb"--?(?:f?plugin|iplugindir|fpass-plugin|specs|wrapper|load|fmodule-mapper|ccc-|prefix"
    rb"|config|ld-path|fuse-ld=[^,]*/)|-B")
# Their arguments go on to another program, one for each comma.
PASSING_OPTIONS = (b"-Wp,", b"-Wa,", b"-Wl,")
LOADING_WORD = re.compile(rb"(?:\A|[\s,])(?:" + LOADING_OPTION.pattern + rb")")
# cc1 and as read such files as well, and gcc hands -I@NAME to them as two words.
RESPONSE_WORD = re.compile(rb"(?:-[A-Za-z+,-]*)?@(.*)", re.S)
RESPONSE_NAME = re.compile(rb"(?:(?<!\S)([\"']?)|[\"'\\])((?:-[A-Za-z+,\"'\\-]*)?)@(\S*)")
MOST_RESPONSE_BYTES = 4 * 1024 * 1024
# What gcc's driver reads unasked, and programs can be named in (gcc manual, "Spec Files"). Clients
# send one that says no more than what -march=native and -mtune=native mean on their machine.
SPECS_NAME = re.compile(rb"specs|.*\.specs?")
MACHINE_WORD = rb"(?:-m[\w.+=-]+|--param [\w-]+=\w+)"
MACHINE_SPECS = re.compile(
    rb"\*cc1_cpu:\n%%\{march=native:%%>march=native(?:(?: %(word)s)+ | {2})"
    rb"%%\{!mtune=\*:%%>mtune=native(?:(?: %(word)s)+| )\}\} "
    rb"%%\{mtune=native:%%>mtune=native(?:(?: %(word)s)+| )\}\n\n" % {b"word": MACHINE_WORD})
MOST_SPECS_BYTES = 64 * 1024


def check_program(request, layout, extra):
    """Raise Refused unless the command is a compiler's by its name, and by the name of the file
    that this leads to. extra: names and paths that --allow-compiler added."""
    program = find_program(request, layout)
    if program is None:
        raise Refused(EXIT_COMPILER_MISSING, "not among the files: %s"
                      % printable(request.argv[0]))
    for path in (request.argv[0], program):
        word = os.fsdecode(path)
        if word not in extra and not compiler_name_allowed(os.path.basename(word), extra):
            raise Refused(EXIT_COMPILER_MISSING, "not a compiler's name: %s" % printable(path))


def check_links(layout):
    """Raise Refused for a symbolic link that gives a program another name than this machine does:
    as and cc1 could be a shell. The names of compilers may lead to any compiler, those of
    libraries to any library."""
    for path in layout.links:
        target = resolve_links(layout, path)
        entry = layout.files.get(target)
        if entry is None or entry.kind == b"-" or os.path.realpath(path) == target:
            continue
        names = [os.path.basename(name) for name in (path, target)]
        if not all(compiler_name_allowed(os.fsdecode(name), ()) for name in names) \
                and not all(map(SHARED_LIBRARY.fullmatch, names)):
            raise Refused(EXIT_COMPILER_MISSING, "%s does not lead to %s on this machine"
                          % (printable(path), printable(target)))


def check_options(request, layout, tree):
    """Raise Refused for an option that loads code or names a program, in response files too, and
    in those that these name; and in clang's own files of options, wherever it may look for them.

    tree: the directory (bytes) that holds the job's files."""
    waiting = [path for path in [*layout.files, *layout.links] if path.endswith(b".cfg")]
    for word in request.argv[1:]:
        parts = word.split(b",") if word.startswith(PASSING_OPTIONS) else [word]
        if any(LOADING_OPTION.match(part) for part in parts):
            refuse("option not allowed (it runs or loads other programs)", word)
        response = RESPONSE_WORD.match(word)
        if response:
            waiting.append(response.group(1))
    seen, bytes_left = set(), MOST_RESPONSE_BYTES
    while waiting:
        name = waiting.pop()
        path = resolve_links(layout, name if name[:1] == b"/" else
                             request.directory + b"/" + name)
        if path not in layout.files or path in seen:
            continue
        seen.add(path)
        with open(tree + path, "rb") as stream:
            text = stream.read(bytes_left)
        bytes_left -= len(text)
        if not bytes_left or LOADING_WORD.search(text.translate(None, b"\"'\\")):
            refuse("response file not allowed (it may run or load other programs)", b"@" + name)
        waiting += names_of_responses(text)


def check_specs(layout, tree):
    """Raise Refused for a file of gcc's specs that may name programs: any but those that this
    machine has itself, and those that say what -march=native means."""
    for name in [*layout.files, *layout.links]:
        path = resolve_links(layout, name)
        entry = layout.files.get(path)
        if not SPECS_NAME.fullmatch(os.path.basename(name)) or entry is None:
            continue
        with open(tree + path, "rb") as stream:
            text = stream.read(MOST_SPECS_BYTES)
        if not MACHINE_SPECS.fullmatch(text) and not (
                int(entry.size, 16) <= MOST_RESPONSE_BYTES
                and OwnFiles.equals(name, entry.digest, int(entry.size, 16))):
            refuse("specs not allowed (they may run other programs)", name)


def names_of_responses(text):
    """Return the names (bytes) of the response files that one may name: each @NAME, "@NAME" or
    -I@NAME between blanks. Raises Refused for quotes in another place, for they hide the @."""
    names = []
    for found in RESPONSE_NAME.finditer(text):
        quote, option, name = found.groups()
        if quote and name[-1:] == quote:
            name, quote = name[:-1], b""
        if quote is None or quote or re.search(rb"[\"'\\]", option + name):
            refuse("response file not allowed (a name in it is quoted oddly)", found.group())
        names.append(name)
    return names


def send_result(peer, path, file, facts, deflate):
    """Send one file that the command wrote, or (file is None) word that it was removed.

    Raises ClientGone, Refused, OSError."""
    head = pack_header(b"NAME", len(path)) + path
    if file is None:
        peer.send(head + pack_header(b"MODE", 0))
        return
    head += pack_header(b"MODE", facts.st_mode & 0o7777 or stat.S_IRUSR)
    fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        deflated = deflate and facts.st_size >= MIN_DEFLATED_BYTES and deflate_file(fd)
        if deflated and len(deflated) < facts.st_size:
            peer.send(head + pack_header(b"ZDAT", 8 + len(deflated)) + b"%08x" % facts.st_size)
            peer.send(deflated)
        else:
            peer.send(head + pack_header(b"DATA", facts.st_size))
            peer.send_file(fd, facts.st_size)
    finally:
        os.close(fd)


def deflate_file(fd):
    """Return the content of an open file, deflated (a bytearray)."""
    state = zlib.compressobj(1)
    deflated = bytearray()
    while True:
        piece = os.read(fd, CHUNK_BYTES)
        if not piece:
            return deflated + state.flush()
        deflated += state.compress(piece)


class FilesSession(Session):
    """A Session that does jobs by files too, where roots can be made."""

    def serve_files(self):
        """Serve a request by files; return the outcome for the log.

        Raises Refused, WireError, ClientGone, OSError, MemoryError; leaves nothing behind."""
        worker, peer = self.worker, self.peer
        peer.note, peer.note_received = worker.note, self.progress.note_received
        if worker.roots is None:
            raise Refused(EXIT_DISTCC_FAILED, "no jobs by files here: %s" % worker.why_not)
        job = FilesJob(peer, worker.roots, self.options)
        try:
            peer.next_life = time.monotonic() + LIFE_AFTER_S
            job.recv()
            self.title = files_title(job.request.argv)
            job.lay_out()
            self.take_place()
            return outcome_of(self.run_files(job))
        except NoRoot as error:
            worker.why_not, worker.roots = str(error), None
            raise Refused(EXIT_DISTCC_FAILED, "no root: %s" % error) from None
        finally:
            self.unstoppable = True
            self.end_compiler()
            self.release_place()
            job.finish()

    def run_files(self, job):
        """Run the command of a job that is laid out, and answer; return its raw wait status."""
        began, peer = time.monotonic(), self.peer
        self.unstoppable = True
        self.run = job.start()
        self.progress.note_group(self.run.process.pid)
        self.run.process.release()
        run = self.run
        self.unstoppable = False
        self.check_stop()
        status = run.run([], self.options.job_lifetime)
        seconds = time.monotonic() - began
        messages = run.messages
        blame_machine(status, messages["stderr"])
        results = job.find_results()
        left = sum(facts.st_size for _, file, facts in results if file is not None)
        self.release_unless(left)
        note = self.worker.note() + b" lacked=%d seconds=%.3f" % (job.lacked, seconds)
        peer.answering = True
        peer.send_limit = time.monotonic() + SILENCES_PER_REQUEST * peer.silence_s
        peer.send(pack_answer(status, messages["stderr"], messages["stdout"], note, len(results)))
        for path, file, facts in results:
            send_result(peer, path, file, facts, job.request.flags & FLAG_DEFLATE)
            if file is not None:
                os.unlink(file)         # it takes memory
                left -= facts.st_size
                self.release_unless(left)
        return status

    def release_unless(self, left):
        """Give the job's place back, unless so many bytes of results are left that other jobs
        would find too little memory. A client that is slow to read must not hold it for less."""
        if left <= LARGE_RESULTS_BYTES:
            self.release_place()


class FilesWorker(Worker):
    """A Worker that does jobs by files too, where roots can be made."""

    session_class = FilesSession

    def __init__(self, options, places=None, roots=None, why_not=""):
        """roots: Roots, or None for the reason why_not."""
        super().__init__(options, places)
        self.roots, self.why_not = roots, why_not
        self.unswept = set()            # processes that were killed and may have left something

    def own_files(self):
        """Return the store's where there is one."""
        return self.roots.store.own if self.roots else self.own

    def sweep(self, pid=None):
        """Remove what jobs by files that were killed have left, as sweep_directories() does."""
        if self.roots and pid is None:
            self.roots.store.sweep()
        elif self.roots:
            self.unswept.add(pid)
            self.sweep_again()

    def sweep_again(self):
        """Try anew where sweep() came too early."""
        self.unswept = {pid for pid in self.unswept if not self.roots.store.sweep(pid)}

    def note(self):
        """Return the words (bytes) that tell a client about this daemon."""
        note = b"places=%d" % self.options.jobs
        if self.places:
            note += b" taken=%d" % self.places.count_taken()
        return note if self.roots else note + b" way=text"


def files_title(argv):
    """Return what the log calls a job: the compiler and its sources."""
    sources = [word for word in argv[1:] if word[:1] != b"-"
               and os.path.splitext(os.fsdecode(word))[1] in LANGUAGE_OF_SUFFIX]
    return "%s %s by files: " % (printable(argv[0]), printable(b" ".join(sources)))


# -------------------------------------------------------------------------------------------
# Server: listen, accept, fork, reap, limit
# CompileServer LocalServer JobHandler
# -------------------------------------------------------------------------------------------

class StopServing(Exception):
    """The daemon was told to stop."""


# A process that serves one connection: its row in the table, time.monotonic() when it began, the
# address of its client.
Child = collections.namedtuple("Child", "row began host")


class CompileServer(socketserver.ForkingTCPServer):
    """Accepts connections and forks a child for each.

    What ForkingTCPServer does that would not serve here: it waits in the accept loop when it
    has 40 children, lets them inherit the listener, and prints tracebacks. So process_request
    is our own. A stop is a flag that the loop sees (shutdown() would wait for itself)."""

    allow_reuse_address = True
    request_queue_size = BACKLOG
    block_on_close = False

    def __init__(self, options):
        """Bind and listen. Raises Fatal (102) if that fails."""
        self.options = options
        self.worker, self.progress = None, Progress()
        self.stop_asked = self.in_child = False
        self.children = {}              # pid: Child
        self.rows = list(range(options.max_connections))
        # Each child's row says which process group its compiler runs in, for a child that must
        # be killed cannot end it any more, whether its request is whole, and how much of it is
        # in memory: for no more than so many bytes may be in all of them together.
        self.table = mmap.mmap(-1, ROW.size * options.max_connections)
        self.most_received = options.max_received * 1024 * 1024 if options.max_received \
            else max(machine_memory() // 2, LEAST_RECEIVED_BYTES)
        self.next_sweep = 0.0           # time.monotonic()
        self.patience_s = silence_timeout_s() * MAKES_ROOM_AFTER
        self.lingering = collections.deque()
        self.idle_since = time.monotonic()
        self.listen()

    def listen(self):
        """Bind and listen. Raises Fatal (102)."""
        self.address_family, address = choose_address(self.options)
        try:
            super().__init__(address, JobHandler)
        except (OSError, OverflowError) as error:
            raise Fatal(EXIT_BIND_FAILED, "cannot listen on %s port %d: %s"
                        % (address[0], address[1], getattr(error, "strerror", error))) from None

    def name(self):
        """Return where it listens, for the log."""
        return "%s port %d" % self.server_address[:2]

    def serves(self, host):
        """Tell whether clients at this address are served."""
        return address_allowed(host, self.options.networks)

    def server_bind(self):
        """Bind, on both protocols where the address is the unspecified one of IPv6."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY,
                                   int(self.options.listen is not None))
        super().server_bind()
        self.socket.setblocking(False)  # a client that left between select and accept

    def get_request(self):
        """Accept one connection. Raises OSError."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                log("error", "cannot accept: %s" % error.strerror)
                time.sleep(ACCEPT_PAUSE_S)
            raise

    def process_request(self, request, client_address):
        """Serve one accepted connection: in a child, or here under --no-fork."""
        host = unmapped(client_address[0])
        self.idle_since = time.monotonic()
        if not self.serves(host):
            self.turn_away(request, "address %s is not served" % host)      # costs no process
            return
        if self.options.no_fork:
            self.finish_request(request, client_address)
            self.shutdown_request(request)
            return
        self.collect_children()
        if not self.may_come(host) and not self.make_room(host):
            self.turn_away(request, "busy: %d connections are open, %d of them from %s"
                           % (len(self.children), self.count_of(host), host))
            return
        row = self.rows.pop()
        try:
            pid = os.fork()
        except OSError as error:
            self.rows.append(row)
            log("error", "cannot fork: %s" % error.strerror)
            self.turn_away(request, "busy: cannot start a process")
            return
        if pid:
            self.children[pid] = Child(row, time.monotonic(), host)
            self.close_request(request)
        else:
            self.run_child(request, client_address, row)

    def count_of(self, host):
        """Return how many connections an address has."""
        return sum(child.host == host for child in self.children.values())

    def may_come(self, host):
        """Tell whether an address may have one more connection.

        The more it has, the more must be left for others: so one address never takes all, nor
        do several. The last one is for an address that has none."""
        own, left = self.count_of(host), len(self.rows)
        return left > 0 and (own == 0 or left > 1 and own < SHARE_OF_ONE_ADDRESS * left)

    def make_room(self, host):
        """End the oldest connection that has been without a whole request for long, of the
        address that has the most; tell whether there was one that has no fewer than `host`. The
        silent must not keep others out."""
        silent = [(-self.count_of(child.host), child.began, pid)
                  for pid, child in self.children.items()
                  if not self.read_row(child.row)[1]
                  and time.monotonic() - child.began > self.patience_s]
        if not silent or -min(silent)[0] < self.count_of(host):
            return False
        pid = min(silent)[2]
        log("warning", "child %d is ended: its client is silent, and others come" % pid)
        kill_quietly(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.clean_after(pid, self.children.pop(pid).row)
        return True

    def read_row(self, row):
        """Return (process group of the compiler or 0, whether the request is whole, bytes)."""
        return ROW.unpack_from(self.table, ROW.size * row)

    def write_row(self, row, **changes):
        """Change what a child tells: group, whole, received."""
        told = dict(zip(("group", "whole", "received"), self.read_row(row)), **changes)
        ROW.pack_into(self.table, ROW.size * row, *told.values())

    def note_received(self, row, count):
        """A child has `count` bytes of its request in memory. Raises Refused if that is more than
        what is left for others: so the large ones go first, and there is always some left."""
        self.write_row(row, received=count)
        left = self.most_received - sum(entry[2] for entry in ROW.iter_unpack(self.table))
        if count > max(left, 0):
            raise Refused(EXIT_OUT_OF_MEMORY, "too many bytes of requests are being received")

    def run_child(self, request, client_address, row):
        """Serve one connection in this child, and exit."""
        status = 1
        try:
            self.socket.close()
            while self.lingering:
                self.lingering.pop()[0].close()
            self.in_child = True
            if self.stop_asked:         # of us, before we knew who we are
                self.worker.handle_stop()
            confine_process(self.options.jobs)
            self.progress = RowProgress(self, row)
            self.finish_request(request, client_address)
            self.shutdown_request(request)
            status = 0
        except Refused as error:        # a stop, just as another fault was to be answered
            log("info", str(error))
        except Exception as error:
            log("critical", place_of(error))
        finally:
            os._exit(status)            # the parent's cleaning up is not for its children to do

    def turn_away(self, request, reason):
        """Answer a connection that cannot be served, without waiting for anything."""
        log("warning", "%s" % reason)
        try:
            request.setblocking(False)
            text = ("distccd: %s\n" % reason).encode()
            request.send(pack_reply(EXIT_DISTCC_FAILED << 8, text, b"", 0))
            request.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        # Closed a little later: a reset for what the client still sends could overtake the answer.
        self.lingering.append((request, time.monotonic() + DRAIN_S))
        while len(self.lingering) > MOST_LINGERING:
            self.lingering.popleft()[0].close()

    def service_actions(self):
        """What the loop does between connections: reap, close, stop. Raises StopServing."""
        if self.stop_asked:
            raise StopServing()
        if self.children:
            self.collect_children()
            self.idle_since = time.monotonic()
        elif self.options.idle_exit \
                and time.monotonic() - self.idle_since > self.options.idle_exit:
            self.end_idle()
        if self.worker.unswept:
            self.worker.sweep_again()
        while self.lingering and self.lingering[0][1] <= time.monotonic():
            self.lingering.popleft()[0].close()
        if time.monotonic() >= self.next_sweep:
            # What was killed together with an earlier daemon may have been too young when this
            # one started.
            self.next_sweep = time.monotonic() + silence_timeout_s()
            sweep_directories()
            self.worker.sweep()

    def collect_children(self, *, blocking=False):
        """Reap the children that have ended; end what those that were killed left behind."""
        for pid in list(self.children):
            try:
                ended, status = os.waitpid(pid, 0 if blocking else os.WNOHANG)
            except ChildProcessError:
                ended, status = pid, 0
            if ended:
                row = self.children.pop(pid).row
                if os.WIFSIGNALED(status):
                    log("error", "child %d was killed by signal %d" % (pid, os.WTERMSIG(status)))
                    self.clean_after(pid, row)
                else:
                    self.free_row(row)

    def free_row(self, row):
        """A child has ended: its row is for the next one."""
        self.write_row(row, group=0, whole=0, received=0)
        self.rows.append(row)

    def clean_after(self, pid, row):
        """A child was killed: end its compiler, remove its directory, free its row."""
        group = self.read_row(row)[0]
        if group > 0:
            kill_quietly(-group, signal.SIGKILL)
        sweep_directories(pid)
        self.worker.sweep(pid)
        self.free_row(row)

    def stop_children(self):
        """End all children: work may finish for a few seconds, and what is stuck is killed."""
        began = time.monotonic()
        for after_s, signal_number in ((0, signal.SIGTERM), (STOP_GRACE_S, signal.SIGTERM),
                                       (STOP_KILL_S, signal.SIGKILL)):
            while self.children and time.monotonic() < began + after_s:
                time.sleep(0.01)
                self.collect_children()
            for pid in self.children:
                kill_quietly(pid, signal_number)
        self.collect_children(blocking=True)

    def end_idle(self):
        """Stop, for nobody has come for long. Raises StopServing."""
        log("notice", "idle for %g s" % self.options.idle_exit)
        raise StopServing()

    def on_stop(self, number):
        """Signal handler: stop the daemon; in a child its job, unless a terminal asks all."""
        if not self.in_child:
            self.stop_asked = True
        if self.options.no_fork or self.in_child and number != signal.SIGINT:
            self.worker.handle_stop()

    def on_hangup(self, _):
        """Signal handler: open the log again; a child ends soon anyway."""
        if not self.in_child:
            reopen_log()

    def handle_error(self, request, client_address):
        """Log a fault of the accept loop in one line."""
        log("critical", place_of(sys.exc_info()[1]))

    def handle_timeout(self):
        """Nothing: children are reaped by service_actions."""

    def server_close(self):
        """Close the listener and what lingers."""
        self.socket.close()
        while self.lingering:
            self.lingering.pop()[0].close()


class LocalServer(CompileServer):
    """A CompileServer on a UNIX socket: who may open that was admitted by ssh, or is this user.

    The directory of the socket is this user's alone (0700). Its lock is held by who looks whether
    the socket is in use, makes it or removes it, so that of two daemons that start at the same
    moment one says that the other listens."""

    def listen(self):
        """Bind and listen, in place of a daemon that was killed. Raises Fatal (102)."""
        self.path = os.path.abspath(self.options.socket)
        self.address_family = socket.AF_UNIX
        try:
            self.directory = open_socket_directory(os.path.dirname(self.path),
                                                   self.options.account)
            fcntl.flock(self.directory, fcntl.LOCK_EX)
            if is_listening(self.path):
                raise Fatal(EXIT_BIND_FAILED, "a daemon listens on %s already"
                            % printable(self.path))
            remove_old_socket(self.path)
            socketserver.ForkingTCPServer.__init__(self, self.path, JobHandler)
            self.identity = os.stat(self.path).st_ino
            fcntl.flock(self.directory, fcntl.LOCK_UN)
        except OSError as error:
            raise Fatal(EXIT_BIND_FAILED, "cannot listen on %s: %s" % (
                printable(self.path), error.strerror or error)) from None

    def server_bind(self):
        """Bind, for this user alone."""
        mask = os.umask(0o177)
        try:
            self.socket.bind(self.path)
        finally:
            os.umask(mask)
        self.server_address = self.path
        self.socket.setblocking(False)

    def name(self):
        """Return where it listens, for the log."""
        return printable(self.path)

    def serves(self, host):
        """Tell whether clients are served: yes."""
        return True

    def get_request(self):
        """Accept one connection, whose other end has no address. Raises OSError."""
        return super().get_request()[0], ("local peer", 0)

    def end_idle(self):
        """Stop, unless somebody has come before the socket was gone. Raises StopServing."""
        self.remove_socket()
        if not select.select([self.socket], [], [], 0)[0]:
            super().end_idle()
        self.idle_since = time.monotonic()

    def remove_socket(self):
        """Remove the socket, if it is still this daemon's, and a directory that is empty then."""
        name = os.path.basename(self.path)
        with contextlib.suppress(OSError):
            fcntl.flock(self.directory, fcntl.LOCK_EX)
            if os.stat(name, dir_fd=self.directory, follow_symlinks=False).st_ino == self.identity:
                os.unlink(name, dir_fd=self.directory)
                os.rmdir(os.path.dirname(self.path))
        fcntl.flock(self.directory, fcntl.LOCK_UN)

    def server_close(self):
        """Close the listener and remove its socket."""
        super().server_close()
        self.remove_socket()


def open_socket_directory(path, account):
    """Return a descriptor of a directory that nobody but this user can enter, made if need be and
    given to the user that root is going to be (pwd entry, or None). Raises OSError, Fatal."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    facts = os.fstat(fd)
    owners = [os.geteuid()] + ([account.pw_uid] if account else [])
    if facts.st_uid not in owners or facts.st_mode & 0o077:
        raise Fatal(EXIT_BIND_FAILED, "%s is not this user's alone" % printable(path))
    if account:
        os.fchown(fd, account.pw_uid, account.pw_gid)
    return fd


def remove_old_socket(path):
    """Remove a socket on which nobody listens, if there is one. Raises OSError, Fatal."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Fatal(EXIT_BIND_FAILED, "%s is no socket" % printable(path))
        os.unlink(path)


def is_listening(path):
    """Tell whether a daemon listens on the UNIX socket at path. Raises OSError where it is out of
    reach."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


class RowProgress(Progress):
    """Tells the parent of a child by the child's row in the table."""

    def __init__(self, server, row):
        """server: the CompileServer; row: the row's number."""
        self.server, self.row = server, row

    def note_group(self, group):
        """Note the compiler's process group."""
        self.server.write_row(self.row, group=group)

    def note_whole(self):
        """Note that the request is whole."""
        self.server.write_row(self.row, whole=1)

    def note_received(self, count):
        """Note how much has come. Raises Refused when all together have too much."""
        self.server.note_received(self.row, count)


class JobHandler(socketserver.BaseRequestHandler):
    """Serves one connection of a CompileServer."""

    def handle(self):
        """Set the socket up and do the job."""
        set_keepalive(self.request)
        host, port = self.client_address[:2]
        host = unmapped(host)
        descriptor = self.request.fileno()
        name = "%s port %d" % (host, port) if port else host
        self.server.worker.serve(Peer(descriptor, descriptor, name), None, self.server.progress)


def unmapped(host):
    """Return an address as its owner writes it: ::ffff:10.1.2.3 is 10.1.2.3."""
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def set_keepalive(connection):
    """Send small pieces at once, and notice within a minute when the client's host vanishes."""
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        idle = "TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE"
        for name, number in ((idle, KEEPALIVE_IDLE_S), ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
                             ("TCP_KEEPCNT", KEEPALIVE_PROBES)):
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), number)
    except OSError:
        pass                            # it has gone, or is no TCP socket


def choose_address(options):
    """Return (family, address) to listen on: --listen, or all addresses of IPv6 and IPv4.

    Raises Fatal (102) for a name that does not resolve."""
    if options.listen is None:
        return (socket.AF_INET6, ("::", options.port)) if dual_stack_works() \
            else (socket.AF_INET, ("0.0.0.0", options.port))
    try:
        found = socket.getaddrinfo(options.listen, options.port, type=socket.SOCK_STREAM,
                                   flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise Fatal(EXIT_BIND_FAILED, "cannot listen on %s: %s"
                    % (printable(options.listen), error)) from None
    return found[0][0], found[0][4]


def dual_stack_works():
    """Tell whether one socket can serve IPv6 and IPv4 here."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def kill_quietly(pid, signal_number):
    """Send a signal to a process, or to the group -pid; one that has gone is no fault."""
    try:
        os.kill(pid, signal_number)
    except OSError:
        pass


def set_signals(on_stop, on_hangup):
    """Have SIGTERM, SIGINT and SIGALRM call on_stop(number), SIGHUP on_hangup(number).

    The rest is as a compiler should find it. A signal with a handler is at its default again in
    a compiler, an ignored one would be ignored there too. Children of a daemon inherit its
    handlers, which ask whose they are: setting them anew costs each job half a millisecond."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD,
                   signal.SIGTSTP, signal.SIGTTOU, signal.SIGTTIN):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)       # subprocess resets this one
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, lambda number, _: on_stop(number))
    signal.signal(signal.SIGHUP, lambda number, _: on_hangup(number))


# -------------------------------------------------------------------------------------------
# Inetd: one job on stdin and stdout
# -------------------------------------------------------------------------------------------

def protect_stderr():
    """Point descriptor 2 at /dev/null if it is the client's connection, as under xinetd.

    Before anything else: a message in the middle of a reply would spoil it."""
    try:
        if stat.S_ISSOCK(os.fstat(0).st_mode) and os.path.sameopenfile(0, 2):
            redirect(2, "/dev/null")
    except OSError:
        redirect(2, "/dev/null")        # 2 is closed: the next file opened must not become it


def redirect(descriptor, path):
    """Make a descriptor refer to the file `path`."""
    fd = os.open(path, os.O_RDWR)
    if fd != descriptor:
        os.dup2(fd, descriptor)
        os.close(fd)


def serve_inetd(options):
    """Serve the one client on stdin and stdout."""
    in_fd, out_fd = os.dup(0), os.dup(1)
    for descriptor in (0, 1):
        redirect(descriptor, "/dev/null")
    name, address = name_peer(in_fd)
    load_prctl()
    roots, why_not = open_roots(options)
    become_user(options.account)
    worker = FilesWorker(options, None, roots, why_not)
    set_signals(lambda _: worker.handle_stop(), lambda _: reopen_log())
    confine_process(options.jobs)
    worker.serve(Peer(in_fd, out_fd, name), address)
    sweep_directories()
    worker.sweep()


def name_peer(fd):
    """Return (name for the log, address to be checked or None) of what is on descriptor fd.

    A UNIX socket, a pipe or a nameless peer was admitted by whoever started this daemon."""
    try:
        connection = socket.socket(fileno=os.dup(fd))
    except OSError:
        return "stdin", None
    with connection:
        try:
            peer = connection.getpeername()
        except OSError:
            return "nameless peer", None
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return "local peer", None
        set_keepalive(connection)
        return "%s port %d" % peer[:2], peer[0]


# -------------------------------------------------------------------------------------------
# Start: bind first, then detach; user, pid file, main
# detach choose_account become_user PidFile serve_network main
# -------------------------------------------------------------------------------------------

def detach():
    """Go on in a new session in the background; return a function to call when all is ready.

    The process that was started waits for that, and exits 0 then, or 100 if it never comes."""
    ready, tell = os.pipe()
    if os.fork():
        os.close(tell)
        os._exit(0 if os.read(ready, 1) else EXIT_DISTCC_FAILED)
    os.close(ready)
    os.setsid()
    if os.fork():
        os._exit(0)                     # no session leader, so never again a terminal
    os.chdir("/")

    def finish():
        for descriptor in (0, 1, 2):
            redirect(descriptor, "/dev/null")
        os.write(tell, b"1")
        os.close(tell)
    return finish


def choose_account(options):
    """Return the user that root is going to be, as pwd has it, or None if we are not root.

    Raises Fatal if nobody can be found."""
    if os.geteuid() != 0:
        return None
    for name in [options.user] if options.user else DEFAULT_USERS:
        try:
            account = pwd.getpwnam(name)
            break
        except KeyError:
            continue
    else:
        raise Fatal(EXIT_BAD_ARGUMENTS, "no user %s: not serving as root"
                    % printable(options.user or " or ".join(DEFAULT_USERS)))
    if account.pw_uid == 0:
        raise Fatal(EXIT_BAD_ARGUMENTS, "not serving as root: choose another --user")
    return account


def become_user(account):
    """Give up root for good: groups, group, user. account: see choose_account(). Raises Fatal."""
    if account is None or os.geteuid() == account.pw_uid:      # as by make_roots()
        return
    try:
        os.setgroups(groups_of(account))
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    except OSError as error:
        raise Fatal(EXIT_DISTCC_FAILED, "cannot become %s: %s"
                    % (account.pw_name, error.strerror)) from None


def open_roots(options):
    """Return (Roots, "") for jobs by files, or (None, the reason), which is logged, where there
    can be none. Root has become another user then if there are. Raises Fatal."""
    try:
        if options.no_fork:
            raise NoRoot("--no-fork serves jobs by text alone")
        roots = make_roots(options)
        log("debug", "jobs by files: contents are kept in %s" % printable(roots.store.path))
        return roots, ""
    except NoRoot as error:
        log("warning", "jobs come by text only: %s" % error)
        return None, str(error)


class PidFile:
    """The file that holds the daemon's process id; an old one is simply written over."""

    def __init__(self, path):
        """path: str, or None for no file."""
        self.path = os.path.abspath(path) if path else None
        self.fd = None

    def open(self, account):
        """Open it, before the user is changed to `account`. Raises Fatal."""
        if self.path is None:
            return
        try:
            try:
                self.fd = open_own_file(self.path, os.O_WRONLY, account)
            except PermissionError:     # it is another's, in a directory of ours
                with acting_as(account):
                    os.unlink(self.path)
                self.fd = open_own_file(self.path, os.O_WRONLY, account)
        except OSError as error:
            raise Fatal(EXIT_IO_ERROR, "cannot write pid file %s: %s"
                        % (printable(self.path), error.strerror)) from None

    def write(self):
        """Write it, once the process id is the daemon's. A full disk is logged."""
        if self.fd is None:
            return
        try:
            os.ftruncate(self.fd, 0)
            os.write(self.fd, b"%d\n" % os.getpid())
        except OSError as error:
            log("error", "cannot write pid file: %s" % error.strerror)

    def remove(self):
        """Remove it; where the daemon's user may not, at least empty it."""
        if self.fd is None:
            return
        try:
            os.ftruncate(self.fd, 0)
            os.unlink(self.path)
        except OSError as error:
            log("notice", "cannot remove pid file: %s" % error.strerror)


def serve_network(options):
    """Listen and serve until told to stop; return the exit code. Raises Fatal."""
    pid_file = PidFile(options.pid_file)
    os.environ["TMPDIR"] = temporary_directory()
    # Before detaching, so that the exit code tells.
    server = LocalServer(options) if options.socket else CompileServer(options)
    pid_file.open(options.account)
    load_prctl()
    roots, why_not = open_roots(options)
    become_user(options.account)
    check_temporary_directory()
    server.worker = FilesWorker(options, None if options.no_fork else Places(options.jobs),
                                roots, why_not)
    finish_detaching = (lambda: None) if options.no_detach else detach()
    pid_file.write()
    set_signals(server.on_stop, server.on_hangup)
    if options.no_fork:
        confine_process(options.jobs)
    sweep_directories()             # after daemons that were killed
    server.worker.sweep()
    log("notice", "listening on " + server.name())
    finish_detaching()
    gc.collect()
    if hasattr(gc, "freeze"):
        gc.freeze()                     # the collector touches none of it in a child
    try:
        server.serve_forever(LOOP_S)
    except (StopServing, Refused):
        pass
    server.server_close()
    log("notice", "stopping")
    server.stop_children()
    pid_file.remove()
    log("notice", "stopped")
    return 0


def check_temporary_directory():
    """Try what each job does. Raises Fatal (107) if TMPDIR is of no use, as this user."""
    directory = JobDirectory()
    try:
        directory.make()
        write_source(directory.path, [b"\n"])
    except OSError as error:
        raise Fatal(EXIT_IO_ERROR, "TMPDIR %s cannot be used: %s"
                    % (printable(temporary_directory()), error.strerror)) from None
    finally:
        if directory.path is not None:
            remove_tree(directory.path)     # whatever DISTCC_SAVE_TEMPS says
        directory.remove()


MODULE_FILE = re.compile(r"(distccd|[0-9a-f]{64})\.py")      # by its digest, as it comes over ssh


def shed_syntax_tree(argv):
    """Start this program anew as a module, if it runs as a script.

    CPython keeps a script's syntax tree while that runs: 3 to 4 MB, and a fifth of each fork.
    A module has none, and comes compiled from the cache. Returns where this cannot be done."""
    path = os.path.abspath(__file__)
    if __name__ != "__main__" or sys.implementation.name != "cpython" \
            or not MODULE_FILE.fullmatch(os.path.basename(path)) or not sys.executable:
        return
    # -I, or Python would look for modules in the current directory first.
    flags = ["-I", "-B"] if sys.dont_write_bytecode else ["-I"]
    program = ("import os, sys; directory, name = os.path.split(sys.argv[1]);"
               " sys.path.insert(0, directory); daemon = __import__(name[:-3]);"
               " sys.exit(daemon.main(sys.argv[2:]))")
    try:
        os.execv(sys.executable, [sys.executable] + flags + ["-c", program, path] + argv)
    except OSError:
        pass


def main(argv):
    """Run the daemon; return its exit code. argv: list of str without the program's name."""
    protect_stderr()
    options = read_options(argv)
    if not options.inetd:
        shed_syntax_tree(argv)
    if not options.inetd and not options.no_detach:
        # Whoever started it may wait for the end of a pipe or hold a lock in one of these.
        os.closerange(3, min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
    try:
        options.account = choose_account(options)
        options.cache_directory = choose_cache_directory(options)
        open_log(options)
        if options.nice:
            os.nice(options.nice)
        os.umask(0o022)
        if options.inetd:
            serve_inetd(options)
            return 0
        return serve_network(options)
    except Fatal as error:
        log("critical", str(error))
        if not options.log_stderr:
            print("%s: %s" % (NAME, error), file=sys.stderr)
        return error.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
