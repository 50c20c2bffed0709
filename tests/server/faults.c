/* SPDX-License-Identifier: MIT */
#include "faults.h"

#include "alloc.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void fault_unref(struct fault *fault)
{
	if (!fault || atomic_fetch_sub(&fault->refs, 1) != 1)
		return;
	json_decref(fault->rule);
	free(fault);
}

void faults_clear(struct faults *f)
{
	for (size_t i = 0; i < f->n; i++)
		fault_unref(f->rules[i]);
	free(f->rules);
	*f = (struct faults){0};
}

/* A typo in a rule would make a test pass for the wrong reason: unknown keys are refused. */
static const char *unknown_key(const json_t *rule)
{
	static const char *const known[] = {
		"port",
		"method",
		"match",
		"unless",
		"skip",
		"count",
		"latency_ms",
		"status",
		"body",
		"content_type",
		"headers",
		"hang",
		"cut_after",
		"cut_upload_after",
		"reset",
		"drop_reply",
		"done",
		"ignore_range",
		"bytes_per_second",
		"truncate_declared",
		"append",
		"shift_range",
		"chunked",
		"struck",
	};
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)rule, key, value)
	{
		size_t i = 0;

		while (i < sizeof(known) / sizeof(known[0]) && strcmp(known[i], key) != 0)
			i++;
		if (i == sizeof(known) / sizeof(known[0]))
			return key;
	}
	return NULL;
}

static int64_t number(const json_t *rule, const char *key, int64_t otherwise)
{
	const json_t *value = json_object_get(rule, key);

	return json_is_number(value) ? (int64_t)json_number_value(value) : otherwise;
}

static bool flag(const json_t *rule, const char *key)
{
	const json_t *value = json_object_get(rule, key);

	return json_is_true(value) || (json_is_integer(value) && json_integer_value(value) != 0);
}

static const char *string(const json_t *rule, const char *key)
{
	return json_string_value(json_object_get(rule, key));
}

static bool read_ports(struct fault *fault)
{
	const char *port = string(fault->rule, "port");

	fault->ports[PORT_API] = !port || strcmp(port, "any") == 0 || strcmp(port, "api") == 0;
	fault->ports[PORT_BLOB] = !port || strcmp(port, "any") == 0 || strcmp(port, "blob") == 0;
	return fault->ports[PORT_API] || fault->ports[PORT_BLOB];
}

static struct fault *fault_new(const json_t *rule)
{
	struct fault *fault = xzalloc(sizeof(*fault));

	atomic_init(&fault->refs, 1);
	fault->rule = json_deep_copy(rule);
	fault->method = string(fault->rule, "method");
	if (fault->method && strcasecmp(fault->method, "any") == 0)
		fault->method = NULL;
	fault->match = string(fault->rule, "match");
	fault->unless = string(fault->rule, "unless");
	fault->skip = number(rule, "skip", 0);
	fault->count = number(rule, "count", -1);
	fault->latency_ms = number(rule, "latency_ms", 0);
	fault->status = number(rule, "status", -1);
	fault->content_type = string(fault->rule, "content_type");
	fault->headers = json_object_get(fault->rule, "headers");
	fault->cut_after = number(rule, "cut_after", -1);
	fault->cut_upload_after = number(rule, "cut_upload_after", -1);
	fault->bytes_per_second = number(rule, "bytes_per_second", -1);
	fault->truncate_declared = number(rule, "truncate_declared", -1);
	fault->append = number(rule, "append", 0);
	fault->shift_range = number(rule, "shift_range", 0);
	fault->chunked = flag(rule, "chunked") || fault->append > 0;
	fault->hang = flag(rule, "hang");
	fault->reset = flag(rule, "reset");
	fault->drop_reply = flag(rule, "drop_reply");
	fault->done = flag(rule, "done");
	fault->ignore_range = flag(rule, "ignore_range");
	return fault;
}

static bool add_rule(struct faults *f, const json_t *rule, char **ret_error)
{
	const char *unknown = json_is_object(rule) ? unknown_key(rule) : "(not an object)";
	struct fault *fault;

	if (unknown) {
		*ret_error = xasprintf("unknown key in a fault rule: %s", unknown);
		return false;
	}
	fault = fault_new(rule);
	f->rules = xrealloc(f->rules, (f->n + 1) * sizeof(struct fault *));
	f->rules[f->n++] = fault;
	if (read_ports(fault) && fault->bytes_per_second != 0)
		return true;
	*ret_error = xasprintf("bad port or rate in a fault rule");
	return false;
}

bool faults_replace(struct faults *f, const json_t *wanted, char **ret_error)
{
	struct faults fresh = {.latency_ms = number(wanted, "latency_ms", 0)};
	size_t i;
	json_t *rule;

	json_array_foreach(json_object_get(wanted, "rules"), i, rule)
	{
		if (!add_rule(&fresh, rule, ret_error)) {
			faults_clear(&fresh);
			return false;
		}
	}
	faults_clear(f);
	*f = fresh;
	return true;
}

json_t *faults_to_json(const struct faults *f)
{
	json_t *rules = json_array();

	for (size_t i = 0; i < f->n; i++) {
		json_t *rule = json_deep_copy(f->rules[i]->rule);

		json_object_set_new(rule, "struck", json_integer(f->rules[i]->struck));
		json_array_append_new(rules, rule);
	}
	return json_pack("{s:o,s:I}", "rules", rules, "latency_ms", (json_int_t)f->latency_ms);
}

static bool fits(const struct fault *fault, enum port_kind port, const char *method,
		 const char *path)
{
	return fault->ports[port] && (!fault->method || strcasecmp(fault->method, method) == 0) &&
	       (!fault->match || strstr(path, fault->match)) &&
	       (!fault->unless || !strstr(path, fault->unless)) &&
	       (fault->count < 0 || fault->struck < fault->count);
}

struct fault *faults_strike(struct faults *f, enum port_kind port, const char *method,
			    const char *path)
{
	for (size_t i = 0; i < f->n; i++) {
		struct fault *fault = f->rules[i];

		if (!fits(fault, port, method, path))
			continue;
		if (fault->skip > 0) { /* this request goes on to the next rule */
			fault->skip--;
			continue;
		}
		fault->struck++;
		atomic_fetch_add(&fault->refs, 1);
		return fault;
	}
	return NULL;
}
