/* Reads one whole, plain request head and makes of it what an app is called with: an ASGI scope, or a WSGI environ; or,
 * for who only passes it on, nothing.
 *
 * "Plain" is what nearly every request behind a proxy is: a method that everybody knows, a path, HTTP/1.1, one Host that
 * is a name, no framing but Content-Length. All else (also all that is malformed) gives None: the Python code of
 * caddysnake.http1 and caddysnake.worker reads it then, and is the only judge of errors. What is accepted here must
 * equal what that code makes of the same bytes, field by field; tests/speedups compares the two.
 *
 * Safe by shape: every byte is read through `struct span`, whose end is never passed, and nothing is written but into
 * objects of Python's and into `scratch`, which is as long as the head. Only the limited API of CPython 3.10 is used.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>
#include <string.h>

/* -- classes of bytes ---------------------------------------------------------------------------------------------- */

enum { TOKEN = 1, TARGET = 2, NAME = 4, HEX = 8, NUMERIC = 16 };

static unsigned char classes[256];

static void
fill_classes(void)
{
    const char *others = "!#$%&'*+-.^`|~"; /* RFC 9110 section 5.6.2, without the underscore: such fields are dropped */
    for (int c = 0; c < 256; c++) {
        int is_digit = c >= '0' && c <= '9';
        int is_alpha = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        int is_hex = is_digit || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
        unsigned char found = 0;
        if (is_digit || is_alpha || (c && c < 128 && strchr(others, c)))
            found |= TOKEN;
        if (c > 0x20 && c < 0x7F && c != '#')
            found |= TARGET;
        if (is_digit || is_alpha || c == '-' || c == '.')
            found |= NAME;
        if (is_hex)
            found |= HEX;
        if (is_digit || c == '.')
            found |= NUMERIC;
        classes[c] = found;
    }
}

struct span {
    const unsigned char *at;
    Py_ssize_t size;
};

static int
all_of(struct span text, int kind)
{
    for (Py_ssize_t i = 0; i < text.size; i++)
        if (!(classes[text.at[i]] & kind))
            return 0;
    return 1;
}

static int
equals(struct span text, const char *other)
{
    return (size_t)text.size == strlen(other) && memcmp(text.at, other, (size_t)text.size) == 0;
}

static unsigned char
lower(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c + 32) : c;
}

static int
equals_without_case(struct span text, const char *other)
{
    if ((size_t)text.size != strlen(other))
        return 0;
    for (Py_ssize_t i = 0; i < text.size; i++)
        if (lower(text.at[i]) != (unsigned char)other[i])
            return 0;
    return 1;
}

/* Whether a field value has no control character but tab (RFC 9110 section 5.5). */
static int
is_value(struct span text)
{
    unsigned int bad = 0;
    for (Py_ssize_t i = 0; i < text.size; i++) {
        unsigned char c = text.at[i];
        bad |= (c < 0x20 && c != '\t') | (c == 0x7F);
    }
    return !bad;
}

static struct span
trimmed(struct span text)
{
    while (text.size && (*text.at == ' ' || *text.at == '\t')) {
        text.at++;
        text.size--;
    }
    while (text.size && (text.at[text.size - 1] == ' ' || text.at[text.size - 1] == '\t'))
        text.size--;
    return text;
}

/* The last member of a comma-separated list. */
static struct span
last_member(struct span text)
{
    for (Py_ssize_t i = text.size; i > 0; i--)
        if (text.at[i - 1] == ',')
            return trimmed((struct span){text.at + i, text.size - i});
    return trimmed(text);
}

/* Cut text at its first `sign`; false when there is none. */
static int
cut(struct span text, char sign, struct span *before, struct span *after)
{
    const unsigned char *found = text.size ? memchr(text.at, sign, (size_t)text.size) : NULL;
    if (!found)
        return 0;
    *before = (struct span){text.at, found - text.at};
    *after = (struct span){found + 1, text.size - (found - text.at) - 1};
    return 1;
}

/* A name, or an IPv4 address, with or without a port; no other form of a Host is plain. */
static int
read_host(struct span host, struct span *name, struct span *port)
{
    if (!cut(host, ':', name, port)) {
        *name = host;
        *port = (struct span){host.at, 0};
    }
    else {
        if (!port->size || port->size > 5)
            return 0;
        for (Py_ssize_t i = 0; i < port->size; i++)
            if (port->at[i] < '0' || port->at[i] > '9')
                return 0;
    }
    return name->size && all_of(*name, NAME);
}

/* An address without a port: digits and dots, or hexadecimal digits and at least two colons. */
static int
is_address(struct span text)
{
    Py_ssize_t colons = 0;
    if (!text.size)
        return 0;
    if (all_of(text, NUMERIC))
        return 1;
    for (Py_ssize_t i = 0; i < text.size; i++) {
        if (text.at[i] == ':')
            colons++;
        else if (!(classes[text.at[i]] & HEX))
            return 0;
    }
    return colons > 1;
}

/* -- names of fields ----------------------------------------------------------------------------------------------- */

enum role {
    ORDINARY,
    HOST,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    CONNECTION,
    HOP,
    FORWARDED_FOR,
    FORWARDED_PROTO,
    FORWARDED_HOST,
    FORWARDED_OTHER,
    NOT_PLAIN, /* framing, what only some may say, and what no app is shown: Python sees to it */
};

#define NAME_MAX_BYTES 48
#define TABLE_SIZE 256 /* a power of two */
#define TABLE_FULL 128

struct known {
    PyObject *name; /* bytes, lower case */
    PyObject *key;  /* of an environ: HTTP_… */
    enum role role;
    unsigned char size;
    unsigned char spelled[NAME_MAX_BYTES];
};

static enum role
role_of(struct span name)
{
    if (equals(name, "host"))
        return HOST;
    if (equals(name, "content-length"))
        return CONTENT_LENGTH;
    if (equals(name, "content-type"))
        return CONTENT_TYPE;
    if (equals(name, "connection"))
        return CONNECTION;
    if (equals(name, "keep-alive") || equals(name, "proxy-connection"))
        return HOP;
    if (equals(name, "x-forwarded-for"))
        return FORWARDED_FOR;
    if (equals(name, "x-forwarded-proto"))
        return FORWARDED_PROTO;
    if (equals(name, "x-forwarded-host"))
        return FORWARDED_HOST;
    if (equals(name, "transfer-encoding") || equals(name, "expect") || equals(name, "upgrade") || equals(name, "te")
        || equals(name, "proxy"))
        return NOT_PLAIN;
    if (equals(name, "forwarded") || equals(name, "x-real-ip") || equals(name, "x-request-start")
        || (name.size >= 12 && memcmp(name.at, "x-forwarded-", 12) == 0))
        return FORWARDED_OTHER;
    if (name.size >= 11 && memcmp(name.at, "caddysnake-", 11) == 0)
        return NOT_PLAIN;
    return ORDINARY;
}

/* -- the reader ---------------------------------------------------------------------------------------------------- */

static const char *const METHODS[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"};
#define METHOD_COUNT 7

/* Strings that every scope or environ holds, made once for each reader. */
enum text {
    T_METHOD, T_PATH, T_RAW_PATH, T_QUERY_STRING, T_SCHEME, T_HEADERS, T_CLIENT, T_SERVER, T_ASGI, T_EXTENSIONS,
    T_HTTP, T_HTTPS, T_1_1,
    T_REQUEST_METHOD, T_PATH_INFO, T_E_QUERY_STRING, T_REQUEST_URI, T_SERVER_PROTOCOL, T_HTTP_1_1, T_REMOTE_ADDR,
    T_URL_SCHEME, T_SERVER_NAME, T_SERVER_PORT, T_80, T_443, T_X_FORWARDED_PROTO, T_X_FORWARDED_HOST,
    B_PROTO, B_HOST, B_FOR, B_HTTP, /* bytes */
    TEXT_COUNT
};
static const char *const TEXTS[] = {
    "method", "path", "raw_path", "query_string", "scheme", "headers", "client", "server", "asgi", "extensions",
    "http", "https", "1.1",
    "REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "REQUEST_URI", "SERVER_PROTOCOL", "HTTP/1.1", "REMOTE_ADDR",
    "wsgi.url_scheme", "SERVER_NAME", "SERVER_PORT", "80", "443", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST",
    "x-forwarded-proto", "x-forwarded-host", "x-forwarded-for", "http",
};

typedef struct {
    PyObject_HEAD
    PyObject *template;   /* of a scope: what is the same in each */
    PyObject *extensions; /* tuple of names */
    PyObject *root;       /* str; empty if there is none */
    PyObject *raw_root;   /* bytes */
    PyObject *methods[METHOD_COUNT];
    PyObject *texts[TEXT_COUNT];
    PyObject *zero;
    PyObject *empty;
    Py_ssize_t max_target;
    Py_ssize_t max_fields;
    int is_environ;
    int is_relay; /* makes neither */
    int keeps_headers;
    int known_count;
    struct known known[TABLE_SIZE];
} Reader;

/* Whom to believe about the client and the server's own name. What anybody else than a proxy forwards is replaced by
 * what there is to say (caddysnake.http1.forwarded). */
enum { FORWARDED, HOST_FIELD, NOBODY, ORIGIN_COUNT };

/* What has been found in one head. */
struct head {
    struct span target, path, query;
    struct span host, host_name, host_port;
    struct span forwarded_for, forwarded_proto, forwarded_host;
    Py_ssize_t end;
    long long content_length;
    int method;
    int origin;
    int has_host, has_length, has_for, has_proto, has_forwarded_host;
    int has_escapes;
    int has_hop;    /* fields that end at the next hop (RFC 9110 section 7.6.1) */
    int has_untrue; /* fields in which somebody who is not believed tells of a client */
};

static PyObject *
shared(PyObject *object)
{
    Py_INCREF(object);
    return object;
}

/* Append (name, value) to a list of fields; 0 or -1. `name` is borrowed, `value` is taken and may be NULL. */
static int
append(PyObject *fields, PyObject *name, PyObject *value)
{
    PyObject *pair = value ? PyTuple_New(2) : NULL;
    if (!pair) {
        Py_XDECREF(value);
        return -1;
    }
    PyTuple_SetItem(pair, 0, shared(name));
    PyTuple_SetItem(pair, 1, value);
    int status = PyList_Append(fields, pair);
    Py_DECREF(pair);
    return status;
}

/* Set dict[key] = value and let go of value, which may be NULL (an error is set then); 0 or -1. */
static int
put(PyObject *dict, PyObject *key, PyObject *value)
{
    if (!value)
        return -1;
    int status = PyDict_SetItem(dict, key, value);
    Py_DECREF(value);
    return status;
}

/* Fill an entry for `name`; 0, or -1 with an error. `lowered` is as long as the name, and lower case. */
static int
describe(struct known *entry, struct span lowered, int is_environ)
{
    entry->role = role_of(lowered);
    entry->key = NULL;
    entry->name = PyBytes_FromStringAndSize((const char *)lowered.at, lowered.size);
    if (!entry->name)
        return -1;
    if (is_environ) {
        char key[5 + NAME_MAX_BYTES];
        if (entry->role == CONTENT_LENGTH || entry->role == CONTENT_TYPE) {
            entry->key = PyUnicode_FromString(entry->role == CONTENT_TYPE ? "CONTENT_TYPE" : "CONTENT_LENGTH");
        }
        else {
            memcpy(key, "HTTP_", 5);
            for (Py_ssize_t i = 0; i < lowered.size; i++) {
                unsigned char c = lowered.at[i];
                key[5 + i] = (char)(c == '-' ? '_' : c >= 'a' && c <= 'z' ? c - 32 : c);
            }
            entry->key = PyUnicode_FromStringAndSize(key, 5 + lowered.size);
        }
        if (!entry->key) {
            Py_CLEAR(entry->name);
            return -1;
        }
        PyUnicode_InternInPlace(&entry->key);
    }
    return 0;
}

/* What is allocated in here is no container, so no collection of garbage, and so no other thread, runs in between.
 * The entry of a name as it is spelled; NULL when the name is not plain, or with an error set. */
static struct known *
look_up(Reader *self, struct span name)
{
    if (!name.size || name.size > NAME_MAX_BYTES)
        return NULL;
    unsigned int hash = 2166136261u;
    for (Py_ssize_t i = 0; i < name.size; i++)
        hash = (hash ^ name.at[i]) * 16777619u;
    for (unsigned int at = hash;; at++) {
        struct known *entry = &self->known[at & (TABLE_SIZE - 1)];
        if (!entry->size) {
            unsigned char lowered[NAME_MAX_BYTES];
            /* A table that strangers have filled with odd names is not emptied: theirs go the long way. */
            if (self->known_count >= TABLE_FULL || !all_of(name, TOKEN))
                return NULL;
            for (Py_ssize_t i = 0; i < name.size; i++)
                lowered[i] = lower(name.at[i]);
            if (describe(entry, (struct span){lowered, name.size}, self->is_environ) < 0)
                return NULL;
            memcpy(entry->spelled, name.at, (size_t)name.size);
            entry->size = (unsigned char)name.size;
            self->known_count++;
            return entry;
        }
        if (entry->size == name.size && memcmp(entry->spelled, name.at, (size_t)name.size) == 0)
            return entry;
    }
}

/* Method, target and version; the number of bytes up to the first field, or 0. */
static Py_ssize_t
read_line(Reader *self, struct span data, struct head *head)
{
    struct span rest = data, word;
    if (!cut(data, ' ', &word, &rest))
        return 0;
    for (head->method = 0; head->method < METHOD_COUNT; head->method++)
        if (equals(word, METHODS[head->method]))
            break;
    if (head->method == METHOD_COUNT || !rest.size || *rest.at != '/')
        return 0;
    Py_ssize_t size = 0;
    const unsigned char *question = NULL;
    int has_escapes = 0;
    while (size < rest.size && classes[rest.at[size]] & TARGET) {
        unsigned char c = rest.at[size];
        if (c == '?' && !question)
            question = rest.at + size;
        else if (c == '%' && !question)
            has_escapes = 1;
        size++;
    }
    static const char VERSION[] = " HTTP/1.1\r\n";
    const Py_ssize_t version_size = (Py_ssize_t)sizeof VERSION - 1;
    if (size > self->max_target || rest.size - size < version_size || memcmp(rest.at + size, VERSION, version_size))
        return 0;
    head->target = (struct span){rest.at, size};
    head->path = head->target;
    head->query = (struct span){rest.at + size, 0};
    if (question) {
        head->path.size = question - rest.at;
        head->query = (struct span){question + 1, size - head->path.size - 1};
    }
    head->has_escapes = has_escapes;
    return (rest.at + size + version_size) - data.at;
}

/* Note what a field means for us; 1, 2 when it is not shown to the app, or 0 when that is not plain. */
static int
note(struct head *head, enum role role, struct span value)
{
    if (head->origin != FORWARDED && role >= FORWARDED_FOR && role <= FORWARDED_OTHER) {
        head->has_untrue = 1;
        return 2;
    }
    switch (role) {
    case ORDINARY:
    case CONTENT_TYPE:
        return 1;
    case HOST:
        if (head->has_host || !read_host(value, &head->host_name, &head->host_port))
            return 0;
        head->host = value;
        head->has_host = 1;
        return 1;
    case CONTENT_LENGTH:
        if (head->has_length || !value.size || value.size > 15)
            return 0;
        for (Py_ssize_t i = 0; i < value.size; i++) {
            if (value.at[i] < '0' || value.at[i] > '9')
                return 0;
            head->content_length = head->content_length * 10 + (value.at[i] - '0');
        }
        head->has_length = 1;
        return 1;
    case HOP:
        head->has_hop = 1;
        return 1;
    case CONNECTION:
        head->has_hop = 1;
        return equals_without_case(value, "keep-alive");
    case FORWARDED_OTHER:
        return 1;
    case FORWARDED_FOR:
        head->forwarded_for = value; /* of several the last counts */
        head->has_for = 1;
        return 1;
    case FORWARDED_PROTO:
        head->forwarded_proto = value;
        head->has_proto = 1;
        return 1;
    case FORWARDED_HOST:
        head->forwarded_host = value;
        head->has_forwarded_host = 1;
        return 1;
    case NOT_PLAIN:
        return 0;
    }
    return 0;
}

/* All fields, from `at` on, into `headers` (a list of pairs, or NULL) and `environ` (a dict, or NULL); 1, 0 when the
 * head is not plain, -1 with an error. */
static int
read_fields(Reader *self, struct span data, Py_ssize_t at, struct head *head, PyObject *headers, PyObject *environ)
{
    Py_ssize_t count = 0;
    Py_ssize_t shown = environ ? PyDict_Size(environ) : 0;
    for (;;) {
        struct span rest = {data.at + at, data.size - at};
        if (rest.size >= 2 && rest.at[0] == '\r' && rest.at[1] == '\n') {
            head->end = at + 2;
            return head->has_host;
        }
        const unsigned char *colon = rest.size ? memchr(rest.at, ':', (size_t)rest.size) : NULL;
        if (!colon || ++count > self->max_fields)
            return 0;
        struct known *known = look_up(self, (struct span){rest.at, colon - rest.at});
        if (!known)
            return PyErr_Occurred() ? -1 : 0;
        struct span tail = {colon + 1, rest.size - (colon - rest.at) - 1};
        const unsigned char *stop = tail.size ? memchr(tail.at, '\r', (size_t)tail.size) : NULL;
        if (!stop || stop + 1 >= data.at + data.size || stop[1] != '\n')
            return 0;
        struct span value = trimmed((struct span){tail.at, stop - tail.at});
        int noted = is_value(value) ? note(head, known->role, value) : 0;
        if (!noted)
            return 0;
        if (headers) {
            PyObject *bytes = PyBytes_FromStringAndSize((const char *)value.at, value.size);
            if (append(headers, known->name, bytes) < 0)
                return -1;
        }
        if (environ && noted == 1) {
            shown++;
            if (put(environ, known->key, PyUnicode_DecodeLatin1((const char *)value.at, value.size, NULL)) < 0)
                return -1;
            if (PyDict_Size(environ) != shown)
                return 0; /* a repeated name: how its values are joined depends on the name */
        }
        at = (stop + 2) - data.at;
    }
}

/* The path with its percent-escapes decoded: bytes, read as UTF-8 (what is not becomes U+FFFD), or as latin-1. */
static PyObject *
decoded(struct span path, int has_escapes, int as_utf8)
{
    char *scratch = NULL;
    const char *text = (const char *)path.at;
    Py_ssize_t size = path.size;
    if (has_escapes) {
        scratch = PyMem_Malloc((size_t)path.size);
        if (!scratch)
            return PyErr_NoMemory();
        size = 0;
        for (Py_ssize_t i = 0; i < path.size; i++) {
            unsigned char c = path.at[i];
            if (c == '%' && path.size - i > 2 && (classes[path.at[i + 1]] & HEX) && (classes[path.at[i + 2]] & HEX)) {
                int high = path.at[i + 1], low = path.at[i + 2];
                high = high <= '9' ? high - '0' : (high | 32) - 'a' + 10;
                low = low <= '9' ? low - '0' : (low | 32) - 'a' + 10;
                c = (unsigned char)(high * 16 + low);
                i += 2;
            }
            scratch[size++] = (char)c;
        }
        text = scratch;
    }
    PyObject *made =
        as_utf8 ? PyUnicode_DecodeUTF8(text, size, "replace") : PyUnicode_DecodeLatin1(text, size, NULL);
    PyMem_Free(scratch);
    return made;
}

static PyObject *
latin1(struct span text)
{
    return PyUnicode_DecodeLatin1((const char *)text.at, text.size, NULL);
}

static PyObject *
bytes_of(struct span text)
{
    return PyBytes_FromStringAndSize((const char *)text.at, text.size);
}

static PyObject *
with_root(PyObject *root, PyObject *path)
{
    PyObject *whole = path ? PyUnicode_Concat(root, path) : NULL;
    Py_XDECREF(path);
    return whole;
}

static PyObject *
with_raw_root(PyObject *root, PyObject *path)
{
    Py_INCREF(root);
    if (path)
        PyBytes_ConcatAndDel(&root, path);
    else
        Py_CLEAR(root);
    return root;
}

static long
port_of(struct span port, int is_secure)
{
    long number = 0;
    if (!port.size)
        return is_secure ? 443 : 80;
    for (Py_ssize_t i = 0; i < port.size; i++)
        number = number * 10 + (port.at[i] - '0');
    return number;
}

static PyObject *
address(PyObject *host, PyObject *port)
{
    PyObject *made = host && port ? PyTuple_New(2) : NULL;
    if (!made) {
        Py_XDECREF(host);
        Py_XDECREF(port);
        return NULL;
    }
    PyTuple_SetItem(made, 0, host);
    PyTuple_SetItem(made, 1, port);
    return made;
}

/* The fields but those that tell of a client further away. */
static PyObject *
believed(PyObject *headers)
{
    PyObject *fields = PyList_New(0);
    for (Py_ssize_t i = 0; fields && i < PyList_Size(headers); i++) {
        PyObject *pair = PyList_GetItem(headers, i);
        PyObject *name = PyTuple_GetItem(pair, 0);
        enum role role = role_of((struct span){(const unsigned char *)PyBytes_AsString(name), PyBytes_Size(name)});
        if (role >= FORWARDED_FOR && role <= FORWARDED_OTHER)
            continue;
        if (PyList_Append(fields, pair) < 0)
            Py_CLEAR(fields);
    }
    return fields;
}

/* The fields of a scope whose peer is the client itself: those of the head, and what the socket tells. */
static PyObject *
with_own_fields(Reader *self, struct head *head, PyObject *headers, PyObject *client)
{
    PyObject *fields = head->has_untrue ? believed(headers) : PyList_GetSlice(headers, 0, PyList_Size(headers));
    if (!fields)
        return NULL;
    int status = append(fields, self->texts[B_PROTO], shared(self->texts[B_HTTP]));
    status |= append(fields, self->texts[B_HOST], bytes_of(head->host));
    if (!status && PyTuple_Check(client) && PyTuple_Size(client)) {
        PyObject *peer = PyTuple_GetItem(client, 0);
        status = append(fields, self->texts[B_FOR], PyUnicode_AsEncodedString(peer, "ascii", "replace"));
    }
    if (status) {
        Py_DECREF(fields);
        return NULL;
    }
    return fields;
}

/* A scope (ASGI HTTP 2.5); NULL with an error. `client` is for a request that tells none. */
static PyObject *
make_scope(Reader *self, struct head *head, PyObject *method, PyObject *path, PyObject *query, PyObject *headers,
           PyObject *client)
{
    PyObject *const *texts = self->texts;
    PyObject *scope = PyDict_Copy(self->template);
    PyObject *extensions = PyDict_New();
    if (!scope || !extensions)
        goto failed;
    for (Py_ssize_t i = 0; i < PyTuple_Size(self->extensions); i++)
        if (put(extensions, PyTuple_GetItem(self->extensions, i), PyDict_New()) < 0)
            goto failed;
    PyObject *asgi = PyDict_GetItemWithError(scope, texts[T_ASGI]);
    int is_secure = head->has_proto && equals_without_case(last_member(head->forwarded_proto), "https");
    int has_root = PyUnicode_GetLength(self->root) > 0;
    PyObject *text = decoded(head->path, head->has_escapes, 1);
    PyObject *raw = shared(path);
    if (has_root) {
        text = with_root(self->root, text);
        raw = with_raw_root(self->raw_root, raw);
    }
    int status = asgi ? put(scope, texts[T_ASGI], PyDict_Copy(asgi)) : -1;
    status |= PyDict_SetItem(scope, texts[T_EXTENSIONS], extensions);
    status |= PyDict_SetItem(scope, texts[T_METHOD], method);
    status |= PyDict_SetItem(scope, texts[T_SCHEME], texts[is_secure ? T_HTTPS : T_HTTP]);
    status |= put(scope, texts[T_PATH], text);
    status |= put(scope, texts[T_RAW_PATH], raw);
    status |= PyDict_SetItem(scope, texts[T_QUERY_STRING], query);
    status |= put(scope, texts[T_HEADERS],
                  head->origin == FORWARDED ? shared(headers) : with_own_fields(self, head, headers, client));
    status |= put(scope, texts[T_CLIENT],
                  head->has_for ? address(latin1(last_member(head->forwarded_for)), shared(self->zero))
                                : shared(client));
    status |= put(scope, texts[T_SERVER],
                  address(latin1(head->host_name), PyLong_FromLong(port_of(head->host_port, is_secure))));
    if (status)
        goto failed;
    Py_DECREF(extensions);
    return scope;
failed:
    Py_XDECREF(extensions);
    Py_XDECREF(scope);
    return NULL;
}

/* Add to an environ (PEP 3333) what follows from the head; 1, 0 when that is not plain, -1 with an error. */
static int
fill_environ(Reader *self, struct head *head, PyObject *environ, PyObject *method)
{
    PyObject *const *texts = self->texts;
    struct span name = head->host_name, port = head->host_port, scheme = {NULL, 0};
    int is_secure = 0, is_told = 0;
    if (head->has_forwarded_host && !read_host(last_member(head->forwarded_host), &name, &port))
        return 0;
    if (head->has_proto) {
        scheme = last_member(head->forwarded_proto);
        is_secure = equals_without_case(scheme, "https");
        is_told = is_secure || equals_without_case(scheme, "http");
    }
    int status = 0;
    if (head->has_for)
        status |= put(environ, texts[T_REMOTE_ADDR], latin1(last_member(head->forwarded_for)));
    if (is_told)
        status |= PyDict_SetItem(environ, texts[T_URL_SCHEME], texts[is_secure ? T_HTTPS : T_HTTP]);
    if (head->origin != FORWARDED) {
        status |= PyDict_SetItem(environ, texts[T_X_FORWARDED_PROTO], texts[T_HTTP]);
        status |= put(environ, texts[T_X_FORWARDED_HOST], latin1(head->host));
    }
    if (head->origin != NOBODY) {
        status |= put(environ, texts[T_SERVER_NAME], latin1(name));
        status |=
            put(environ, texts[T_SERVER_PORT], port.size ? latin1(port) : shared(texts[is_secure ? T_443 : T_80]));
    }
    status |= PyDict_SetItem(environ, texts[T_REQUEST_METHOD], method);
    status |= put(environ, texts[T_PATH_INFO], decoded(head->path, head->has_escapes, 0));
    status |= put(environ, texts[T_E_QUERY_STRING], latin1(head->query));
    PyObject *uri = latin1(head->target);
    if (PyUnicode_GetLength(self->root) > 0)
        uri = with_root(self->root, uri);
    status |= put(environ, texts[T_REQUEST_URI], uri);
    status |= PyDict_SetItem(environ, texts[T_SERVER_PROTOCOL], texts[T_HTTP_1_1]);
    return status ? -1 : 1;
}

PyDoc_STRVAR(read_doc,
"read(data, start, origin, /)\n--\n\n"
"Return ``(line, headers, host, content_length, end, made)`` of the head that ``data`` (bytes) begins with, or None.\n\n"
"``line`` is method, target, path, query and version; ``headers`` a list of pairs of bytes, or None where a reader of\n"
"environs keeps none; ``content_length`` an int or None; ``end`` where the head ends. ``made`` is a scope, whose client\n"
"is ``start`` when the head tells none; or an environ, ``start`` being the connection's part of it; or the head's bytes,\n"
"None where not all of it goes on to the next hop. ``origin``: whom to believe: 0 what a proxy forwards, 1 the Host field\n"
"alone, 2 nobody.");

static PyObject *
read_head(Reader *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *headers = NULL, *fields = NULL, *made = NULL, *line = NULL, *result = NULL;
    struct span data;
    struct head head;
    char *start;

    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "read takes three arguments");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(args[0], &start, &data.size) < 0)
        return NULL;
    if (self->is_environ && !PyDict_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "the connection's part of an environ is a dict");
        return NULL;
    }
    long origin = PyLong_AsLong(args[2]);
    if (origin < 0 || origin >= ORIGIN_COUNT) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "origin is 0, 1 or 2");
        return NULL;
    }
    data.at = (const unsigned char *)start;
    memset(&head, 0, sizeof head);
    head.origin = (int)origin;
    Py_ssize_t at = read_line(self, data, &head);
    if (!at)
        Py_RETURN_NONE;
    if (!self->is_environ || self->keeps_headers) {
        headers = PyList_New(0);
        if (!headers)
            return NULL;
    }
    if (self->is_environ) {
        fields = PyDict_New();
        if (!fields)
            goto done;
    }
    int status = read_fields(self, data, at, &head, headers, fields);
    if (status <= 0) {
        result = status ? NULL : shared(Py_None);
        goto done;
    }
    if (head.has_for && !self->is_relay && !is_address(last_member(head.forwarded_for))) {
        result = shared(Py_None);
        goto done;
    }

    PyObject *method = self->methods[head.method];
    line = PyTuple_New(5);
    PyObject *target = line ? bytes_of(head.target) : NULL;
    PyObject *path = target ? (head.path.size == head.target.size ? shared(target) : bytes_of(head.path))
                            : NULL;
    PyObject *query = path ? (head.query.size ? bytes_of(head.query) : shared(self->empty)) : NULL;
    if (!query) {
        Py_XDECREF(target);
        Py_XDECREF(path);
        goto done;
    }
    PyTuple_SetItem(line, 0, shared(method));
    PyTuple_SetItem(line, 1, target);
    PyTuple_SetItem(line, 2, path);
    PyTuple_SetItem(line, 3, query);
    PyTuple_SetItem(line, 4, shared(self->texts[T_1_1]));

    if (self->is_relay) {
        made = head.has_hop ? shared(Py_None) : bytes_of((struct span){data.at, head.end});
        if (!made)
            goto done;
    }
    else if (self->is_environ) {
        made = PyDict_Copy(args[1]);
        if (!made || PyDict_Update(made, fields) < 0)
            goto done;
        status = fill_environ(self, &head, made, method);
        if (status <= 0) {
            result = status ? NULL : shared(Py_None);
            goto done;
        }
    }
    else {
        made = make_scope(self, &head, method, path, query, headers, args[1]);
        if (!made)
            goto done;
    }

    PyObject *parts[6] = {
        shared(line),
        shared(headers ? headers : Py_None),
        bytes_of(head.host),
        head.has_length ? PyLong_FromLongLong(head.content_length) : shared(Py_None),
        PyLong_FromSsize_t(head.end),
        shared(made),
    };
    result = parts[2] && parts[3] && parts[4] ? PyTuple_New(6) : NULL;
    for (int i = 0; i < 6; i++) {
        if (result)
            PyTuple_SetItem(result, i, parts[i]);
        else
            Py_XDECREF(parts[i]);
    }
done:
    Py_XDECREF(headers);
    Py_XDECREF(fields);
    Py_XDECREF(made);
    Py_XDECREF(line);
    return result;
}

/* -- the type ------------------------------------------------------------------------------------------------------ */

static int
reader_traverse(Reader *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->template);
    Py_VISIT(self->extensions);
    return 0;
}

static int
reader_clear(Reader *self)
{
    Py_CLEAR(self->template);
    Py_CLEAR(self->extensions);
    return 0;
}

static void
reader_dealloc(Reader *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    reader_clear(self);
    Py_CLEAR(self->root);
    Py_CLEAR(self->raw_root);
    Py_CLEAR(self->zero);
    Py_CLEAR(self->empty);
    for (int i = 0; i < METHOD_COUNT; i++)
        Py_CLEAR(self->methods[i]);
    for (int i = 0; i < TEXT_COUNT; i++)
        Py_CLEAR(self->texts[i]);
    for (int i = 0; i < TABLE_SIZE; i++) {
        Py_CLEAR(self->known[i].name);
        Py_CLEAR(self->known[i].key);
    }
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(reader_doc,
"Reader(template, extensions, root, raw_root, max_target_bytes, max_fields, keeps_headers)\n--\n\n"
"Reads heads of one app. ``template`` is what every scope holds (a dict with ``asgi`` in it), None to make environs,\n"
"or False to make nothing; ``extensions`` a tuple of their names; ``root`` and ``raw_root`` what a proxy took off the\n"
"path, as it is and as it was sent. ``keeps_headers``: environs are told with their headers.");

static PyObject *
reader_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *template, *extensions, *root, *raw_root;
    Py_ssize_t max_target, max_fields;
    int keeps_headers;
    if (keywords && PyDict_Size(keywords)) {
        PyErr_SetString(PyExc_TypeError, "Reader takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OO!UO!nnp", &template, &PyTuple_Type, &extensions, &root, &PyBytes_Type, &raw_root,
                          &max_target, &max_fields, &keeps_headers))
        return NULL;
    if (template != Py_None && template != Py_False && !PyDict_Check(template)) {
        PyErr_SetString(PyExc_TypeError, "template is a dict, None or False");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Reader *self = (Reader *)allocate(type, 0); /* all zero */
    if (!self)
        return NULL;
    self->is_environ = template == Py_None;
    self->is_relay = template == Py_False;
    self->template = shared(template);
    self->extensions = shared(extensions);
    self->root = shared(root);
    self->raw_root = shared(raw_root);
    self->max_target = max_target;
    self->max_fields = max_fields;
    self->keeps_headers = keeps_headers;
    self->zero = PyLong_FromLong(0);
    self->empty = PyBytes_FromStringAndSize("", 0);
    int is_whole = self->zero && self->empty;
    for (int i = 0; i < METHOD_COUNT; i++)
        is_whole &= (self->methods[i] = PyUnicode_InternFromString(METHODS[i])) != NULL;
    for (int i = 0; i < TEXT_COUNT; i++)
        is_whole &= (self->texts[i] = i < B_PROTO ? PyUnicode_InternFromString(TEXTS[i])
                                                  : PyBytes_FromString(TEXTS[i])) != NULL;
    if (!is_whole) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyMethodDef reader_methods[] = {
    {"read", (PyCFunction)(void (*)(void))read_head, METH_FASTCALL, read_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_doc, (void *)reader_doc},
    {Py_tp_new, reader_new},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_traverse, reader_traverse},
    {Py_tp_clear, reader_clear},
    {Py_tp_methods, reader_methods},
    {0, NULL},
};

static PyType_Spec reader_spec = {
    .name = "caddysnake_speedups.Reader",
    .basicsize = sizeof(Reader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = reader_slots,
};

static int
module_exec(PyObject *module)
{
    fill_classes();
    PyObject *type = PyType_FromModuleAndSpec(module, &reader_spec, NULL);
    if (!type)
        return -1;
    int status = PyModule_AddObjectRef(module, "Reader", type);
    Py_DECREF(type);
    return status < 0 ? -1 : PyModule_AddIntConstant(module, "FORM", 2);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "caddysnake_speedups",
    .m_doc = "Reads plain request heads. FORM is the number of what readers return: who knows another uses none.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit_caddysnake_speedups(void)
{
    return PyModuleDef_Init(&module);
}
