/* SPDX-License-Identifier: MIT */
/* Turns a request's response into one libmicrohttpd can send, shaped by the fault that struck. */
#ifndef EMULATOR_STREAM_H
#define EMULATOR_STREAM_H

#include "http.h"

/* Takes the body out of rq->response. Never NULL. */
struct MHD_Response *stream_response(struct request *rq);

#endif
