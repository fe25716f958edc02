/** The type that draft 11 of the `RateLimit` fields gives to a used-up limit. */
export const DRAFT_TYPE = 'https://iana.org/assignments/http-problem-types#quota-exceeded'

/** The `type` of a problem with this code, as it is by default. */
export function typeOf(code: string): string {
  return code === 'rate_limited' ? DRAFT_TYPE : ownTypeOf(code)
}

/** The type that this package gives to a code. */
export function ownTypeOf(code: string): string {
  return `urn:problem-type:latchkey:${code}`
}

/** The members that tell of limits used up, with these `rateLimitHeaders`. */
export function exceeds(names: readonly string[], rateLimitHeaders: unknown = 'draft-11'): object {
  const isNewest = rateLimitHeaders === 'draft-11' || rateLimitHeaders === 'draft-10'
  if (!isNewest) return { type: ownTypeOf('rate_limited'), exceeded: names }
  return { type: DRAFT_TYPE, exceeded: names, 'violated-policies': names }
}
