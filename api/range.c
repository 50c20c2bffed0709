/* SPDX-License-Identifier: MIT */

/*
 * Values of two headers, parsed strictly: a server that says something else is not understood, and
 * what is not understood is never guessed at, because bytes would land at the wrong place of a
 * file.
 */

#include <attachfs/transfer.h>

#include <curl/curl.h>
#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#define DAY_S 86400

/* Digits only, no sign, no blanks. NULL = none there, or more than fits below 2^63. */
static const char *parse_number(const char *text, uint64_t *ret_number)
{
	uint64_t number = 0;

	if (!isdigit((unsigned char)*text))
		return NULL;
	for (; isdigit((unsigned char)*text); text++) {
		unsigned digit = (unsigned)(*text - '0');

		if (number > ((uint64_t)INT64_MAX - digit) / 10)
			return NULL;
		number = number * 10 + digit;
	}
	*ret_number = number;
	return text;
}

static const char *skip_blanks(const char *text)
{
	return text + strspn(text, " \t");
}

int transfer_parse_content_range(const char *value, struct transfer_range *ret_range)
{
	struct transfer_range range = {.total = -1};
	uint64_t total;

	value = skip_blanks(value);
	if (strncasecmp(value, "bytes", 5) != 0 || (value[5] != ' ' && value[5] != '\t'))
		return -EINVAL;
	value = skip_blanks(value + 5);
	if (*value == '*') {
		range.unsatisfied = true;
		value++;
	} else {
		value = parse_number(value, &range.first);
		if (!value || *value != '-')
			return -EINVAL;
		value = parse_number(value + 1, &range.last);
		if (!value || range.last < range.first)
			return -EINVAL;
	}
	if (*value++ != '/')
		return -EINVAL;
	if (*value == '*') {
		value++;
	} else {
		value = parse_number(value, &total);
		if (!value)
			return -EINVAL;
		range.total = (int64_t)total;
	}
	if (*skip_blanks(value))
		return -EINVAL;
	/* Neither "nothing of I do not know what" nor a range beyond its own end means anything. */
	if (range.unsatisfied ? range.total < 0
			      : range.total >= 0 && range.last >= (uint64_t)range.total)
		return -EINVAL;
	*ret_range = range;
	return 0;
}

int64_t transfer_parse_retry_after(const char *value, int64_t now_s)
{
	int64_t wait_s;

	value = skip_blanks(value);
	if (isdigit((unsigned char)*value) && !value[strspn(value, "0123456789 \t")]) {
		uint64_t seconds;
		const char *end = parse_number(value, &seconds);

		if (!end) /* more than 2^63 is still a number, and still too long */
			return DAY_S * 1000LL;
		if (*skip_blanks(end))
			return -1;
		wait_s = seconds < DAY_S ? (int64_t)seconds : DAY_S;
	} else {
		time_t date = isalpha((unsigned char)*value) ? curl_getdate(value, NULL) : -1;

		if (date == -1)
			return -1;
		if (date <= now_s)
			return 0;
		wait_s = (int64_t)date - now_s < DAY_S ? (int64_t)date - now_s : DAY_S;
	}
	return wait_s * 1000;
}
