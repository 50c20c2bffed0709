/* SPDX-License-Identifier: MIT */
#ifndef UNIT_RIG_H
#define UNIT_RIG_H

/*
 * What a client's calls and downloads need to be tested without a client: an engine, a pool, the
 * credential, and a server on loopback that answers as a test's handler says, one request for each
 * connection. The server knows logins: POST /login gives the next token, and only the last one given
 * is good where rig_check_token() is asked.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <attachfs/remote.h>

#define RIG_TOKEN_MAX 64

enum rig_login {
	RIG_LOGIN_GOOD,
	RIG_LOGIN_REFUSED, /* 401 */
	RIG_LOGIN_FAILS,   /* 500 */
	RIG_LOGIN_HANGS,   /* until rig->login is another one */
};

struct rig_reply {
	char *text; /* malloc()ed; what is sent, then the connection is closed */
	size_t len;
	bool hang; /* do not close it, until the client does or rig->release */
};

struct rig;
/* On the connection's thread. */
typedef void rig_handler(struct rig *rig, const char *request, struct rig_reply *reply);

struct rig {
	struct remote remote; /* first */
	rig_handler *handler;
	char origin[64], login_url[96];
	char directory[64], password_file[96], log_file[96];
	_Atomic enum rig_login login;
	_Atomic unsigned logins, logouts, requests; /* requests: all others */
	_Atomic unsigned token;			    /* the number of the good one; 0 = none */
	_Atomic unsigned refused;		    /* 401s given by rig_check_token() */
	_Atomic bool refuse_all, release;
	_Atomic int life_ms; /* of a token; 0 = not told */
	_Atomic int step;    /* the tests' own */
	struct rig_server *server;
};

/* @own: the clients logs in with a password; false: it has a token from the start. */
void rig_start(struct rig *rig, rig_handler *handler, bool log_in);
/* As a mount ends. rig_stop() may follow. */
void rig_shutdown(struct rig *rig);
void rig_stop(struct rig *rig);

void rig_set_password(struct rig *rig, const char *password);

/* False: it is not the good one, and a 401 is in *@reply. */
bool rig_check_token(struct rig *rig, const char *request, struct rig_reply *reply);

/* *@reply by printf; and by bytes after a head. */
void rig_reply(struct rig_reply *reply, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void rig_append(struct rig_reply *reply, const void *data, size_t len);

/* Wait until *@counter is at least @n; fails after 20 s. */
void rig_await(_Atomic unsigned *counter, unsigned n);

#endif
