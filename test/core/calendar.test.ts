import { tzScan } from '@date-fns/tz'
import fc from 'fast-check'
import { Temporal } from 'temporal-polyfill'
import { describe, expect, it } from 'vitest'
import { checkTimeZone, periodAt } from '../../lib/core/limits/calendar.ts'

const HOUR = 3_600_000
const DAY = 24 * HOUR
const at = (text: string) => new Date(text).getTime()
const iso = ({ startsAt, endsAt }: { startsAt: number; endsAt: number }) => [
  new Date(startsAt).toISOString(),
  new Date(endsAt).toISOString(),
]

describe('a time zone', () => {
  it.each([
    '',
    'Mars/Olympus',
    'Europe',
    'UTC+25',
    '+25:00',
    '+1:0',
    'europe berlin',
    'Z\n',
    '\0',
    'a'.repeat(9_999),
  ])('is refused where nobody knows it: %j', (zone) => {
    const message = '"timeZone" must be an IANA time zone such as "Europe/Berlin"'
    expect(() => checkTimeZone('timeZone', zone)).toThrow(new TypeError(message))
  })

  it.each([7, null, undefined, {}, ['UTC']])('is refused where it is no text: %j', (zone) => {
    expect(() => checkTimeZone('timeZone', zone)).toThrow(
      /^"timeZone" must be an IANA time zone .* received /,
    )
  })

  it.each([
    ['UTC', 'UTC'],
    ['europe/berlin', 'Europe/Berlin'],
    ['+01:00', '+01:00'],
    ['-0930', '-09:30'],
    ['+14', '+14:00'],
    // An alias keeps its name, under which limits count.
    ['Asia/Calcutta', 'Asia/Calcutta'],
    ['Europe/Kyiv', 'Europe/Kyiv'],
  ])('is written in one way: %s', (zone, written) => {
    expect(checkTimeZone('timeZone', zone)).toBe(written)
  })
})

describe('a day', () => {
  it.each([
    ['24 hours', 'UTC', '2026-02-28T23:59:59.999Z', '2026-02-28T00:00:00.000Z', 24],
    ['its first instant included', 'UTC', '2026-03-01T00:00:00.000Z', '2026-03-01T00:00:00.000Z', 24],
    ['23 hours in spring', 'Europe/Berlin', '2026-03-29T12:00:00Z', '2026-03-28T23:00:00.000Z', 23],
    ['25 hours in autumn', 'Europe/Berlin', '2026-10-25T12:00:00Z', '2026-10-24T22:00:00.000Z', 25],
    [
      'its own days in the south',
      'Australia/Lord_Howe',
      '2026-04-05T02:00:00Z',
      '2026-04-04T13:00:00.000Z',
      24.5,
    ],
    ['another date than UTC', 'Asia/Tokyo', '2026-01-01T15:00:00Z', '2026-01-01T15:00:00.000Z', 24],
    [
      'a midnight that does not exist',
      'Africa/Cairo',
      '2026-04-24T12:00:00Z',
      '2026-04-23T22:00:00.000Z',
      23,
    ],
    [
      'a midnight that does not exist',
      'America/Asuncion',
      '2023-10-01T12:00:00Z',
      '2023-10-01T04:00:00.000Z',
      23,
    ],
    ['a midnight that comes twice', 'America/Havana', '2026-11-01T12:00:00Z', '2026-11-01T04:00:00.000Z', 25],
    ['a next day that was left out', 'Pacific/Apia', '2011-12-30T09:00:00Z', '2011-12-29T10:00:00.000Z', 24],
    ['an offset east', '+05:45', '2026-06-01T18:15:00Z', '2026-06-01T18:15:00.000Z', 24],
    ['an offset west', '-09:30', '2026-06-01T09:29:59.999Z', '2026-05-31T09:30:00.000Z', 24],
    ['an offset of minutes', '-00:30', '2026-06-01T00:29:59.999Z', '2026-05-31T00:30:00.000Z', 24],
    ['the days before 1970', 'UTC', '1969-12-31T23:59:59.999Z', '1969-12-31T00:00:00.000Z', 24],
  ])('has %s (%s at %s)', (_what, zone, now, start, hours) => {
    expect(iso(periodAt('day', zone, at(now)))).toEqual([
      start,
      new Date(at(start) + hours * HOUR).toISOString(),
    ])
  })
})

describe('a month', () => {
  it.each([
    ['28 days', 'UTC', '2026-02-28T23:59:59.999Z', '2026-02-01T00:00:00.000Z', '2026-03-01T00:00:00.000Z'],
    ['29 days', 'UTC', '2028-02-29T23:59:59.999Z', '2028-02-01T00:00:00.000Z', '2028-03-01T00:00:00.000Z'],
    ['31 days', 'UTC', '2026-01-31T00:00:00Z', '2026-01-01T00:00:00.000Z', '2026-02-01T00:00:00.000Z'],
    [
      'an end in the next year',
      'UTC',
      '2026-12-31T12:00:00Z',
      '2026-12-01T00:00:00.000Z',
      '2027-01-01T00:00:00.000Z',
    ],
    [
      'an hour less',
      'Europe/Berlin',
      '2026-03-15T00:00:00Z',
      '2026-02-28T23:00:00.000Z',
      '2026-03-31T22:00:00.000Z',
    ],
    [
      'an hour more',
      'Europe/Berlin',
      '2026-10-15T00:00:00Z',
      '2026-09-30T22:00:00.000Z',
      '2026-10-31T23:00:00.000Z',
    ],
    [
      'no midnight on its first day',
      'America/Asuncion',
      '2023-10-15T00:00:00Z',
      '2023-10-01T04:00:00.000Z',
      '2023-11-01T03:00:00.000Z',
    ],
    [
      'an end without a midnight',
      'America/Asuncion',
      '2023-09-15T00:00:00Z',
      '2023-09-01T04:00:00.000Z',
      '2023-10-01T04:00:00.000Z',
    ],
    [
      'the month of its zone',
      'Pacific/Kiritimati',
      '2026-01-31T10:00:00Z',
      '2026-01-31T10:00:00.000Z',
      '2026-02-28T10:00:00.000Z',
    ],
  ])('has %s (%s at %s)', (_what, zone, now, start, end) => {
    expect(iso(periodAt('month', zone, at(now)))).toEqual([start, end])
  })
})

describe('periods around every change of clocks', () => {
  const years = { start: new Date('2026-01-01T00:00:00Z'), end: new Date('2027-01-01T00:00:00Z') }

  it.each(['Africa', 'America', 'Antarctica', 'Asia', 'Atlantic', 'Australia', 'Europe', 'Pacific'])(
    'are those of Temporal in %s',
    (continent) => {
      const zones = Intl.supportedValuesOf('timeZone').filter((zone) => zone.startsWith(`${continent}/`))
      for (const zone of zones) {
        for (const { date } of tzScan(zone, years)) {
          for (const hours of [-25, -0.5, 0.5]) {
            const now = date.getTime() + hours * HOUR
            for (const per of ['day', 'month'] as const) {
              expect([zone, per, now, ...iso(periodAt(per, zone, now))]).toEqual([
                zone,
                per,
                now,
                ...iso(periodOfTemporal(per, zone, now)),
              ])
            }
          }
        }
      }
    },
  )
})

function periodOfTemporal(per: 'day' | 'month', zone: string, now: number) {
  const day = Temporal.Instant.fromEpochMilliseconds(now).toZonedDateTimeISO(zone).startOfDay()
  const start = per === 'day' ? day : day.with({ day: 1 }).startOfDay()
  const end = start.add(per === 'day' ? { days: 1 } : { months: 1 }).startOfDay()
  return { startsAt: start.epochMilliseconds, endsAt: end.epochMilliseconds }
}

describe('periods', () => {
  const zones = [
    'UTC',
    'Europe/Berlin',
    'America/Sao_Paulo',
    'Africa/Cairo',
    'Asia/Kathmandu',
    '-09:30',
    'America/Havana',
  ]
  const moments = fc.integer({ min: at('2015-01-01T00:00:00Z'), max: at('2037-01-01T00:00:00Z') })

  it('hold the moment they are asked for and follow on one another without a gap', () => {
    fc.assert(
      fc.property(fc.constantFrom(...zones), fc.constantFrom('day', 'month'), moments, (zone, per, now) => {
        const period = periodAt(per, zone, now)
        expect(period.startsAt <= now && now < period.endsAt).toBe(true)
        expect(periodAt(per, zone, period.endsAt).startsAt).toBe(period.endsAt)
        expect(periodAt(per, zone, period.startsAt - 1).endsAt).toBe(period.startsAt)
        const days = (period.endsAt - period.startsAt) / DAY
        expect(days).toBeGreaterThanOrEqual(per === 'day' ? 22 / 24 : 27.9)
        expect(days).toBeLessThanOrEqual(per === 'day' ? 26 / 24 : 31.1)
      }),
    )
  })

  it('are the same whatever was asked for before, with clocks that run on and clocks that are set back', () => {
    const first = periodAt('day', 'Europe/Berlin', at('2026-03-29T12:00:00Z'))
    const questions = [
      ['day', 'Europe/Berlin', '2026-03-28T12:00:00Z'],
      ['day', 'Europe/Berlin', '2026-03-30T12:00:00Z'],
      ['month', 'Europe/Berlin', '2026-03-29T12:00:00Z'],
      ['day', 'UTC', '2026-03-29T12:00:00Z'],
    ] as const
    for (const [per, zone, now] of questions) expect(periodAt(per, zone, at(now))).not.toEqual(first)
    expect(periodAt('day', 'Europe/Berlin', first.startsAt)).toEqual(first)
    expect(periodAt('day', 'Europe/Berlin', first.endsAt - 1)).toEqual(first)
    expect(periodAt('day', 'Europe/Berlin', first.endsAt).startsAt).toBe(first.endsAt)
    expect(periodAt('day', 'Europe/Berlin', first.startsAt - 1).endsAt).toBe(first.startsAt)
  })
})
