/* SPDX-License-Identifier: MIT */

/*
 * ISO 8601 <-> nanoseconds since the epoch, without the C library's time zones and locales: days
 * are counted by the civil calendar (Gregorian, also before it was), seconds by 86,400 a day.
 */

#include "json.h"

#include <errno.h>
#include <stdio.h>

#include <attachfs/clock.h>

/* Days from 1970-01-01; years are counted from March so that the leap day comes last. */
static int64_t days_from_civil(int64_t year, int64_t month, int64_t day)
{
	year -= month <= 2;
	int64_t era = (year >= 0 ? year : year - 399) / 400;
	int64_t of_era = year - era * 400;
	int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static void civil_from_days(int64_t days, int64_t *year, int64_t *month, int64_t *day)
{
	days += 719468;
	int64_t era = (days >= 0 ? days : days - 146096) / 146097;
	int64_t of_era = days - era * 146097;
	int64_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	int64_t of_year = of_era - (365 * y + y / 4 - y / 100);
	int64_t m = (5 * of_year + 2) / 153;

	*day = of_year - (153 * m + 2) / 5 + 1;
	*month = m < 10 ? m + 3 : m - 9;
	*year = y + era * 400 + (*month <= 2);
}

static int days_in_month(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return days[month - 1] + (month == 2 && leap);
}

/* Exactly @n digits at *@p, which moves past them; -1 when they are not there. */
static int take_digits(const char **p, int n)
{
	int value = 0;

	for (; n > 0; n--, (*p)++) {
		if (**p < '0' || **p > '9')
			return -1;
		value = value * 10 + (**p - '0');
	}
	return value;
}

static bool take_char(const char **p, char c)
{
	if (**p != c)
		return false;
	(*p)++;
	return true;
}

/* ".123456": 1..n digits, those beyond the ninth are dropped. False: a dot without digits. */
static bool take_fraction(const char **p, int64_t *ns)
{
	int64_t unit = CLOCK_NS_PER_S / 10;

	*ns = 0;
	if (!take_char(p, '.') && !take_char(p, ','))
		return true;
	if (**p < '0' || **p > '9')
		return false;
	for (; **p >= '0' && **p <= '9'; (*p)++, unit /= 10)
		*ns += unit * (**p - '0');
	return true;
}

/* "Z", "+02:00", "-0130", "+02" or nothing, to the end of the text. Seconds east of UTC. */
static bool take_zone(const char **p, int64_t *ret_east_s)
{
	*ret_east_s = 0;
	if (take_char(p, 'Z') || take_char(p, 'z') || **p == '\0')
		return **p == '\0';
	bool west = take_char(p, '-');
	if (!west && !take_char(p, '+'))
		return false;
	int hours = take_digits(p, 2);
	bool colon = take_char(p, ':');
	int minutes = colon || **p != '\0' ? take_digits(p, 2) : 0;
	if (hours < 0 || hours > 23 || minutes < 0 || minutes > 59 || **p != '\0')
		return false;
	*ret_east_s = (hours * 3600 + minutes * 60) * (west ? -1 : 1);
	return true;
}

int time_parse_iso8601(const char *p, int64_t *ret_ns)
{
	int year = take_digits(&p, 4);
	int month = year >= 0 && take_char(&p, '-') ? take_digits(&p, 2) : -1;
	int day = month >= 0 && take_char(&p, '-') ? take_digits(&p, 2) : -1;
	bool separated =
		day >= 0 && (take_char(&p, 'T') || take_char(&p, 't') || take_char(&p, ' '));
	int hour = separated ? take_digits(&p, 2) : -1;
	int minute = hour >= 0 && take_char(&p, ':') ? take_digits(&p, 2) : -1;
	int second = minute >= 0 && take_char(&p, ':') ? take_digits(&p, 2) : -1;
	int64_t ns, east_s;

	if (second < 0 || year < 1678 || year > 2261 || month < 1 || month > 12)
		return -EINVAL;
	if (day < 1 || day > days_in_month(year, month) || hour > 23 || minute > 59 || second > 60)
		return -EINVAL;
	if (!take_fraction(&p, &ns) || !take_zone(&p, &east_s))
		return -EINVAL;
	int64_t s = days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
	*ret_ns = (s - east_s) * CLOCK_NS_PER_S + ns;
	return 0;
}

void time_format_iso8601(int64_t ns, char out[TIME_ISO8601_SIZE])
{
	int64_t s = ns / CLOCK_NS_PER_S - (ns % CLOCK_NS_PER_S < 0);
	int64_t days = s / 86400 - (s % 86400 < 0);
	int64_t year, month, day;

	s -= days * 86400;
	civil_from_days(days, &year, &month, &day);
	/* The remainders change nothing; they tell the compiler how wide the numbers are. */
	snprintf(out, TIME_ISO8601_SIZE, "%04u-%02u-%02uT%02u:%02u:%02uZ", (unsigned)year % 10000,
		 (unsigned)month % 100, (unsigned)day % 100, (unsigned)(s / 3600) % 100,
		 (unsigned)(s / 60 % 60), (unsigned)(s % 60));
}
