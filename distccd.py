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

Environment:
    PATH                     where compilers are found; entries that lead to distcc are left out
    TMPDIR                   holds a directory for each job (default /tmp)
    DISTCC_SAVE_TEMPS        1: keep the jobs' directories
    DISTCCD_SILENCE_TIMEOUT  seconds (fractions too) that a peer may be silent, default 60

Exit codes: 0, 101 for a wrong command line, 102 when the port is taken, 107 when a file cannot
be used, 100 for anything else.

The daemon is one process that accepts and forks, and a child for each connection. Children
share nothing but byte locks on a nameless file, which bound the compilers at work: the kernel
drops a lock when its holder dies, so nothing that a child does can leave the daemon short.
"""

import argparse
import codecs
import collections
import contextlib
import errno
import fcntl
import functools
import gc
import grp
import io
import ipaddress
import itertools
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
import time

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
MAKES_ROOM_AFTER = 1 / 12               # of the silence time-out, when all connections are taken
ROW = struct.Struct("=iiQ")             # of what a child tells its parent: group, whether its
                                        # request is whole, bytes of it
SHARE_OF_ONE_ADDRESS = 7                # so many connections for each one that is left to others
BACKLOG = 256
MOST_LINGERING = 64                     # connections turned away whose bytes are still drained
LOOP_S = 0.25                           # how soon the accept loop sees a signal or a dead child
ACCEPT_PAUSE_S = 0.1                    # after accept or fork failed for want of resources

EARLY_START_S = 2.0                     # so long a compiler may wait for the client to preprocess
PLACE_POLL_MS = 3                       # the one that waits for a compiler's place looks so often
TURN_POLL_MS = 50                       # the others see at least so often whether it is their turn
COMPILE_POLL_MS = 500                   # a compiler that left its pipes to others is noticed
LOOKS_WITHOUT_PAUSE = 50                # at whether a compiler has ended: some 0.1 ms in all
PROBE_TIMEOUT_S = 10

STOP_GRACE_S = 3.0                      # jobs at work may finish; then they are ended
STOP_KILL_S = 4.0                       # a child that has not gone by now is killed
SMALL_OBJECT_BYTES = 128 * 1024         # smaller ones leave in one piece with their header

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
        """code: an exit code of section 2.9; reason: one line of text."""
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


class Command:
    """What was understood of a client's command line.

    compiler: its first word. action: "-c" or "-S". options: the words that may go to the
    compiler. source: the input's name as the client gave it, for the log. language: the
    preprocessed form, as -x names it. directives_only: macros are still to be expanded.
    family: what family_of() says of the compiler, None until it is asked."""

    def __init__(self, compiler):
        self.compiler = compiler
        self.action = self.source = self.language = self.family = None
        self.options = []
        self.assembler_words = []
        self.preprocessed = self.directives_only = self.arch_given = False


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
    if option in ("-fpreprocessed", "-fdirectives-only"):
        command.preprocessed |= option == "-fpreprocessed"
        command.directives_only |= option == "-fdirectives-only"
        return
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
    if command.directives_only and not command.preprocessed:
        refuse("only together with -fpreprocessed", "-fdirectives-only")
    # Over all of them at once: -Wa,--defsym -Wa,/etc/passwd=1 are two words of one command.
    if not assembler_words_harmless(command.assembler_words):
        refuse("assembler options not allowed", " ".join(command.assembler_words))
    if command.language is None:
        language = language_of(command.source, command.compiler)
        command.language = PREPROCESSED_FORM.get(language, language)
        if command.language not in PREPROCESSED_LANGUAGES:
            refuse("not a source file that is compiled here", command.source)
    return command


# gcc under -fdirectives-only, and clang always, obey directives in text that is said to be
# preprocessed: #include there would read this machine's files. The patterns below match what any
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
    `#pragma GCC pch_preprocess "FILE"` is the first token of all, and macros can spell that in
    ways that no scan finds. So another pragma goes first, behind a copy of the line markers that
    name the main file and the directory."""
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


def confine_process(jobs):
    """Bound this process and the compilers that inherit it: memory, size of files, number of
    processes, no privileges by setuid programs; and let the kernel end them before others.

    jobs: how many compilers share this machine's memory."""
    for name, most in ((resource.RLIMIT_AS, max(machine_memory() // jobs, COMPILER_MEMORY_BYTES)),
                       (resource.RLIMIT_FSIZE, COMPILER_FILE_BYTES), (resource.RLIMIT_CORE, 0),
                       (resource.RLIMIT_NPROC, MOST_PROCESSES)):
        # What whoever started us has set lower stays so.
        limits = [most if limit == resource.RLIM_INFINITY else min(limit, most)
                  for limit in resource.getrlimit(name)]
        resource.setrlimit(name, tuple(limits))
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
            pipe.setblocking(False)
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

    def take_unwanted(self):
        """The same, but leave it to those who wait, if any do."""
        return not self.wanted() and self.take_now()

    def wanted(self):
        """Tell whether someone waits for a place."""
        if not self.try_lock(self.count):
            return True
        self.unlock(self.count)
        return False

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


def read_header(receive, token, most):
    """Read one packet header that must carry `token`; return its number, at most `most`.

    Raises WireError: truncated, another token, digits that are none, a number too large."""
    header = read_exactly(receive, HEADER_BYTES, token.decode())
    digits = header[4:]
    if header[:4] != token or digits.translate(None, b"0123456789abcdefABCDEF"):
        raise WireError(EXIT_PROTOCOL_ERROR, "expected %s and 8 hex digits, got %r"
                        % (token.decode(), header))
    number = int(digits, 16)
    if number > most:
        raise WireError(EXIT_PROTOCOL_ERROR, "%s announces %d, more than %d"
                        % (token.decode(), number, most))
    return number


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
# FLAG: bit 0 asks for ZDAT. NOTE: NAME=VALUE words, blanks between, about the daemon.
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
FILES_VERSION = 64
PAGE_ENTRIES = 64
DIGEST_DIGITS = 64
FLAG_DEFLATE = 1
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
LINKER = "linker"                # without meaning for -c and -S
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
        --sysroot* -finput-charset=*""",
    LINKER: """-L* -l* -Wl,* -Xlinker -T* -Tbss* -Tdata* -Ttext* -u -z -e* -s -r -N -n -t -rdynamic
        -static -static-libgcc -static-libstdc++ -static-pie -shared -shared-libgcc -symbolic
        -pie -no-pie -nopie -nostdlib -nostartfiles -nodefaultlibs -nolibc -nostdlib++ -h
        -rpath -framework -weak_framework -fuse-ld=*""",
    PLAIN: """-O* -std=* -ansi -undef -w -W -pedantic -pedantic-errors -pipe -pthread -pthreads -p
    -pg
        --param* -target --target=* -stdlib=* -b -V -G* -trigraphs -Qunused-arguments
        -g -g0 -g1 -g2 -ggdb -ggdb0 -ggdb1 -ggdb2 -gdwarf* -gno-* -gstrict-dwarf -gz*
        -gcolumn-info -gline-tables-only -gmlt -gpubnames -ggnu-pubnames -grecord-gcc-switches
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
    "its messages depend on the source itself": """-fanalyzer -Wmisleading-indentation
        -Werror=misleading-indentation -fdiagnostics-absolute-paths
        -fuse-line-directives -frewrite-*""",
    "it depends on this machine's processor": "-march=native -mtune=native -mcpu=native",
    "the object records the command or the macros": """-g3 -ggdb3 -gstabs* -gctf* -gbtf*
        -frecord-gcc-switches -frecord-command-line -grecord-command-line -flto* -fcompare-debug*
        -fdiagnostics-generate-patch -fdiagnostics-parseable-fixits -P -traditional-cpp
        -traditional -fdebug-macro -ffat-lto-objects -fwhole-program -gcodeview* -glldb*
        -gembed-source -gmodules -gsce
        -fembed-bitcode* -femit-struct-debug-* -fno-emit-struct-debug-* -fdebug-cpp
        -fno-debug-cpp -fno-working-directory -fcoverage-mapping -fopenacc* -fself-test*""",
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
# Request and reply: what is read from the client and written to it
# Peer recv_command recv_source send_reply send_refusal
# -------------------------------------------------------------------------------------------

class Peer:
    """The client's end: two descriptors (the same twice for a socket), never blocking for good.

    name: the address for the log. received, sent: bytes so far. limit: time.monotonic() at
    which the whole request must be here, but for the time that its bytes take. while_waiting:
    what to call again and again while bytes of the request are awaited, until it returns False;
    or None."""

    def __init__(self, in_fd, out_fd, name):
        self.in_fd, self.out_fd, self.name = in_fd, out_fd, name
        self.stream = io.FileIO(in_fd, closefd=False)
        self.silence_s = silence_timeout_s()
        self.received = self.sent = 0
        self.while_waiting = None
        self.limit = time.monotonic() + SILENCES_PER_REQUEST * self.silence_s
        self.reader, self.writer = select.poll(), select.poll()
        self.reader.register(in_fd, select.POLLIN)
        self.writer.register(out_fd, select.POLLOUT)
        os.set_blocking(in_fd, False)
        os.set_blocking(out_fd, False)

    def receive(self, most):
        """Return 1 to `most` bytes, b"" at end of file. Raises Refused on silence, ClientGone."""
        piece = self.patiently(self.stream.read, most)
        self.received += len(piece)
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
        silent_at = time.monotonic() + wait_s
        while self.while_waiting and time.monotonic() < silent_at:
            if self.reader.poll(PLACE_POLL_MS):
                return
            if not self.while_waiting():
                self.while_waiting = None
        rest_s = max(0.0, silent_at - time.monotonic())
        if not self.reader.poll(1000 * rest_s) and wait_s == self.silence_s:
            raise Refused(EXIT_IO_ERROR, "nothing came for %g s" % self.silence_s)

    def watch(self, timeout_ms):
        """Wait so long, and see whether the client leaves. Raises ClientGone, Refused."""
        if self.reader.poll(timeout_ms):
            self.meet_silence()

    def look(self):
        """See, in the middle of work, whether the client leaves, and do what is to be done while
        waiting. Raises ClientGone, Refused."""
        self.watch(0)
        if self.while_waiting and not self.while_waiting():
            self.while_waiting = None

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
        """Wait until something can be written. Raises ClientGone when the client takes nothing."""
        if not self.writer.poll(1000 * self.silence_s):
            raise ClientGone("it took nothing for %g s" % self.silence_s)

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


def recv_command(peer):
    """Return argv, a list of str, the first half of the one request.

    Each length is bounded before memory is taken. Raises WireError, Refused, ClientGone."""
    receive = peer.receive
    version = read_header(receive, b"DIST", 0xffffffff)
    if version != PROTOCOL_VERSION:
        raise WireError(EXIT_PROTOCOL_ERROR, "protocol version %d is not served here, only %d"
                        % (version, PROTOCOL_VERSION))
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


def pack_reply(status, messages, output, object_bytes):
    """Return all of a reply up to the object itself. messages, output: the compiler's stderr
    and stdout (buffers); status: raw wait status."""
    return b"".join((pack_header(b"DONE", PROTOCOL_VERSION), pack_header(b"STAT", status),
                     pack_header(b"SERR", len(messages)), messages,
                     pack_header(b"SOUT", len(output)), output,
                     pack_header(b"DOTO", object_bytes)))


def send_reply(peer, status, messages, output, object_path):
    """Send the reply of a compiler that ran; the object only if it succeeded.

    Raises ClientGone, Refused if there is no object or it is too large, OSError."""
    if status:
        peer.send(pack_reply(status, messages, output, 0))
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
        head = pack_reply(status, messages, output, size)
        if size <= SMALL_OBJECT_BYTES:
            peer.send(head + os.read(fd, size))
        else:
            peer.send(head)
            peer.send_file(fd, size)
    finally:
        os.close(fd)


def send_refusal(peer, code, reason):
    """Answer that the job was not done: `code` in the status, the reason as a message line."""
    text = "distccd: %s\n" % reason
    peer.send(pack_reply(code << 8, text.encode("utf-8", "backslashreplace"), b"", 0))


# -------------------------------------------------------------------------------------------
# Job: directory, rebuilt command, compile, clean
# JobDirectory compiler_argv Worker
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
    if command.directives_only:
        argv += ["-fpreprocessed", "-fdirectives-only"]
    return argv + ["-x", command.language, command.action, "-o", output, source]


class Worker:
    """What serves connections, one at a time: the options, the PATH and the places.

    stopping counts the requests to stop. The first one ends a job that has no whole request
    yet; one that is at_work may finish for some seconds, then a second one ends it. Where a
    stop would leave something behind (a process, half an answer) unstoppable is true."""

    def __init__(self, options, places=None):
        """places: Places, or None where one process serves one job at a time."""
        self.options, self.places = options, places
        self.run = None                 # the job's Compile, once it is started
        self.directory = JobDirectory()
        self.early_until = 0.0          # time.monotonic() at which an early start is given up
        self.times_wanted = 0           # in a row, the place of an early start
        self.path = clean_path(os.environ.get("PATH") or os.defpath)
        self.environment = {"PATH": os.pathsep.join(self.path), "LC_ALL": "C.UTF-8",
                            RECURSION_GUARD: str(RECURSION_LIMIT)}
        self.stopping = 0
        self.serving = self.at_work = self.unstoppable = False
        self.title = ""
        self.command_bytes = None       # of the request, up to the source
        self.note_group = lambda group: None
        self.note_whole = lambda: None
        self.note_received = lambda count: None

    def handle_stop(self):
        """For signal handlers: a request to stop. Raises Refused in the job that it ends."""
        self.stopping += 1
        if self.stopping == 1:
            signal.setitimer(signal.ITIMER_REAL, STOP_GRACE_S)      # brings the second one
        if self.serving and not self.unstoppable:
            self.check_stop()

    def check_stop(self):
        """Raise Refused if the job must end now."""
        if self.stopping > int(self.at_work):
            raise Refused(EXIT_DISTCC_FAILED, "the daemon is stopping")

    def serve(self, peer, address):
        """Serve one connection to its end and log it in one line. Never raises.

        address: the client's, to be checked; None where a super-server has checked it."""
        began = time.monotonic()
        self.title = ""
        self.command_bytes = None
        self.at_work = self.unstoppable = False
        level, outcome = "info", ""
        try:
            self.serving = True
            self.check_stop()
            if address is not None and not address_allowed(address, self.options.networks):
                raise Refused(EXIT_DISTCC_FAILED, "address %s is not served" % address)
            outcome = self.serve_job(peer)
        except ClientGone as error:
            level, outcome = "info", "client gone: %s" % error
        except Exception as error:
            # The one place that answers for all faults of a job, so that none ends in a traceback.
            level, outcome = self.answer_fault(peer, error)
        self.serving = False
        log(level, "%s: %s%s, %d bytes in, %d out, %.3f s" % (
            peer.name, self.title, outcome, peer.received, peer.sent, time.monotonic() - began))

    def answer_fault(self, peer, error):
        """Tell the client why its job was not done; return (level, text) for the log."""
        self.unstoppable = True
        level, code, reason = explain_fault(error)
        if not peer.received and isinstance(error, WireError):
            return "debug", "closed without a request"
        try:
            if not peer.sent:
                send_refusal(peer, code, reason)
                peer.drain()
        except ClientGone:
            reason += " (and the client has gone)"
        if code == EXIT_TRUNCATED and peer.received == self.command_bytes:
            return "debug", "closed without a source"       # the client found that it stays there
        return level, "refused (%d): %s" % (code, reason)

    def serve_job(self, peer):
        """Read a request, compile, reply; return the outcome for the log.

        Raises Refused, WireError, ClientGone, OSError, MemoryError; leaves nothing behind."""
        argv = recv_command(peer)
        self.command_bytes = peer.received
        self.title = printable(" ".join(argv[:1])) + ": "
        try:
            command = rebuild_command(argv)
            self.title = "%s %s: " % (printable(command.compiler), printable(command.source))
            compiler = find_compiler(command.compiler, self.path, self.options.allow_compiler)
        except Refused:
            recv_source(peer, self.note_received)
            # or the answer would be lost in the reset that this would meet
            raise
        try:
            self.start_early(peer, command, compiler)
            source = self.check_source(peer, command, compiler,
                                       recv_source(peer, self.note_received))
            peer.while_waiting = None
            self.at_work = True
            self.note_whole()
            if self.places:
                self.places.take(peer)
            status = self.compile_job(peer, command, compiler, source)
            return "signal %d" % status if status & 0xff else "exit %d" % (status >> 8)
        finally:
            self.unstoppable = True
            self.end_compiler()
            self.directory.remove()
            if self.places:
                self.places.release()

    def start_early(self, peer, command, compiler):
        """Start the compiler while the client still preprocesses, which saves its start later.

        It has a place that nobody needs, and not for long: see keep_early(). Its faults are met
        again when the source is here, for an answer given now might be lost."""
        if not self.places or self.options.no_fifo or not self.places.take_unwanted():
            return
        self.unstoppable = True
        try:
            self.directory.make()
            self.start_compiler(peer, command, compiler, "-")
        except (OSError, Refused) as error:
            log("debug", "%s: no early start: %s" % (peer.name, error))
            self.give_up_early()
        else:
            peer.while_waiting = self.keep_early
        self.early_until, self.times_wanted = time.monotonic() + EARLY_START_S, 0
        self.unstoppable = False
        self.check_stop()

    def keep_early(self):
        """End what start_early() began if that has waited too long, or a whole request needs
        the place: one that is not whole must not keep others out. Tell whether it goes on.

        Who holds the first place gives way at once and each further one a little later, so that
        not all do."""
        self.times_wanted = self.times_wanted + 1 if self.places.wanted() else 0
        if self.times_wanted <= self.places.held and time.monotonic() < self.early_until:
            return True
        self.give_up_early()
        self.unstoppable = False
        self.check_stop()
        return False

    def give_up_early(self):
        """Undo what start_early() did."""
        self.end_compiler()
        self.directory.remove()
        self.places.release()

    def start_compiler(self, peer, command, compiler, name):
        """Start the compiler on the source called name; "-" is its standard input.

        Raises OSError, Refused. To be called while `unstoppable`."""
        environment = dict(self.environment, TMPDIR=self.directory.path)
        output = os.path.join(self.directory.path, OUTPUT_NAMES[command.action])
        argv = compiler_argv(command, compiler, self.family(command, compiler), name, output)
        log("debug", "%s: running %s" % (peer.name, printable(" ".join(argv), 2000)))
        self.run = Compile(argv, self.directory.path, environment, name == "-", peer)
        self.note_group(self.run.process.pid)

    def family(self, command, compiler):
        """Return the compiler's family, found out once for a command."""
        if command.family is None:
            command.family = family_of(compiler, self.environment)
        return command.family

    def end_compiler(self):
        """End what is left of the compiler, if it was started."""
        if self.run:
            self.unstoppable = True
            self.run.end()
            self.note_group(0)
            self.run = None

    def check_source(self, peer, command, compiler, source):
        """Return the buffers that are to be compiled for this source. Raises Refused if it could
        make the compiler read files, ClientGone. No place is needed for this."""
        family = self.family(command, compiler)
        end = time.monotonic() + CHECK_S

        def look():
            peer.look()
            if time.monotonic() > end:
                raise Refused(EXIT_BAD_ARGUMENTS, "the source takes too long to look through")
        disarm_source(source, command.directives_only or family != "gcc", look)
        if family == "clang" or command.language == "assembler":
            return [source]
        return [guard_source(source), source]

    def compile_job(self, peer, command, compiler, source):
        """Have the source (buffers) compiled in the job's directory and reply; return the wait
        status."""
        self.unstoppable = True
        if not self.run:
            self.directory.make()
            name = write_source(self.directory.path, source) if self.options.no_fifo else "-"
            self.start_compiler(peer, command, compiler, name)
        run = self.run
        self.unstoppable = False
        self.check_stop()
        if run.stdin:
            widen_socket(run.stdin, sum(map(len, source)), self.options.jobs)
        status = run.run([] if self.options.no_fifo else source, self.options.job_lifetime)
        self.end_compiler()
        if self.places:
            self.places.release()       # a client that is slow to read must not hold it
        blame_machine(status, run.messages["stderr"])
        send_reply(peer, status, run.messages["stderr"], run.messages["stdout"],
                   os.path.join(self.directory.path, OUTPUT_NAMES[command.action]))
        return status


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
# Server: listen, accept, fork, reap, limit
# CompileServer
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
        self.worker = None
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
        self.address_family, address = choose_address(options)
        try:
            super().__init__(address, JobHandler)
        except (OSError, OverflowError) as error:
            raise Fatal(EXIT_BIND_FAILED, "cannot listen on %s port %d: %s"
                        % (address[0], address[1], getattr(error, "strerror", error))) from None

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
        if not address_allowed(host, self.options.networks):
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
            self.worker.note_group = lambda group: self.write_row(row, group=group)
            self.worker.note_whole = lambda: self.write_row(row, whole=1)
            self.worker.note_received = lambda count: self.note_received(row, count)
            self.finish_request(request, client_address)
            self.shutdown_request(request)
            status = 0
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
        while self.lingering and self.lingering[0][1] <= time.monotonic():
            self.lingering.popleft()[0].close()
        if time.monotonic() >= self.next_sweep:
            # What was killed together with an earlier daemon may have been too young when this
            # one started.
            self.next_sweep = time.monotonic() + silence_timeout_s()
            sweep_directories()

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


class JobHandler(socketserver.BaseRequestHandler):
    """Serves one connection of a CompileServer."""

    def handle(self):
        """Set the socket up and do the job."""
        set_keepalive(self.request)
        host, port = self.client_address[:2]
        host = unmapped(host)
        descriptor = self.request.fileno()
        self.server.worker.serve(Peer(descriptor, descriptor, "%s port %d" % (host, port)), None)


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
    become_user(options.account)
    worker = Worker(options)
    set_signals(lambda _: worker.handle_stop(), lambda _: reopen_log())
    confine_process(options.jobs)
    worker.serve(Peer(in_fd, out_fd, name), address)
    sweep_directories()


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
    if account is None:
        return
    try:
        os.setgroups(groups_of(account))
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    except OSError as error:
        raise Fatal(EXIT_DISTCC_FAILED, "cannot become %s: %s"
                    % (account.pw_name, error.strerror)) from None


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
    server = CompileServer(options)     # before detaching, so that the exit code tells
    pid_file.open(options.account)
    trim_memory()
    load_prctl()
    become_user(options.account)
    server.worker = Worker(options, None if options.no_fork else Places(options.jobs))
    finish_detaching = (lambda: None) if options.no_detach else detach()
    pid_file.write()
    set_signals(server.on_stop, server.on_hangup)
    if options.no_fork:
        confine_process(options.jobs)
    check_temporary_directory()
    log("notice", "listening on %s port %d" % server.server_address[:2])
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


def trim_memory():
    """Give back what starting took: compiling this script needs 3 MB for a moment."""
    gc.collect()
    try:
        import ctypes
        ctypes.CDLL(None).malloc_trim(0)
    except (ImportError, OSError, AttributeError):
        pass                            # not glibc


def check_temporary_directory():
    """Warn if jobs cannot be done here; clean up after daemons that were killed."""
    if not os.access(temporary_directory(), os.W_OK | os.X_OK):
        log("warning", "TMPDIR %s cannot be written: every job will be refused"
            % printable(temporary_directory()))
    sweep_directories()


def shed_syntax_tree(argv):
    """Start this program anew as a module, if it runs as a script.

    CPython keeps a script's syntax tree while that runs: 3 to 4 MB, and a fifth of each fork.
    A module has none, and comes compiled from the cache. Returns where this cannot be done."""
    path = os.path.abspath(__file__)
    if __name__ != "__main__" or sys.implementation.name != "cpython" \
            or os.path.basename(path) != "distccd.py" or not sys.executable:
        return
    # -I, or Python would look for modules in the current directory first.
    flags = ["-I", "-B"] if sys.dont_write_bytecode else ["-I"]
    program = ("import os, sys; sys.path.insert(0, os.path.dirname(sys.argv[1])); import distccd;"
               " sys.exit(distccd.main(sys.argv[2:]))")
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
