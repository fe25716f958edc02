import { TOKEN } from '../http/credential.ts'
import { checkArray, checkBoolean, fail } from '../internal/options.ts'

/** Which pages on other sites may use the HTTP interface from a browser (the CORS protocol of the Fetch standard). */
export interface CrossOriginOptions {
  /**
   * The origins whose pages may use the interface, each as a browser sends it: `https://dashboard.example.com`, with a port where
   * it is not the usual one. There are no patterns, and neither `*` nor `null`. Preflight requests from these origins are answered,
   * and changes that another site has caused are refused from all others.
   *
   * @default [] (none: no CORS field is sent, and changes that another site has caused are refused)
   */
  allowedOrigins?: readonly string[]
  /**
   * Whether those pages may send cookies and other credentials of the browser: `Access-Control-Allow-Credentials`. Leave it off
   * where they send the login in a header field. Only with `allowedOrigins`.
   *
   * @default false
   */
  allowCredentials?: boolean
}

export const CROSS_ORIGIN_OPTIONS: readonly (keyof CrossOriginOptions)[] = Object.freeze([
  'allowedOrigins',
  'allowCredentials',
])

type HeaderFields = Readonly<Record<string, string | string[] | undefined>>

export interface CrossOrigin {
  /** The fields that every answer has, whoever asks. */
  readonly always: Readonly<Record<string, string>>
  /** Whether the request comes from a page that may use the interface. */
  isAllowed(headers: HeaderFields): boolean
  /** The fields that let such a page read the answer; none for all other requests. */
  fieldsOf(headers: HeaderFields): Record<string, string>
  /** The further fields that answer a preflight request for a path with these methods; null where the request is no such one. */
  preflightFields(method: string, headers: HeaderFields, methods: () => string): Record<string, string> | null
}

const MAX_ORIGINS = 1_000
const MAX_REQUESTED = 50
const PREFLIGHT_SECONDS = 600
/** What the interface reads; where the login stands is for the application, so that further ones are granted as they are asked for. */
const READ_FIELDS = Object.freeze([
  'Authorization',
  'Content-Type',
  'Idempotency-Key',
  'If-Match',
  'X-Api-Key',
])
const EXPOSED_FIELDS = 'Allow, ETag, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate'

/** @throws TypeError naming the option. */
export function createCrossOrigin({ allowedOrigins, allowCredentials }: CrossOriginOptions): CrossOrigin {
  const origins = new Set(allowedOrigins === undefined ? [] : checkOrigins(allowedOrigins))
  if (allowCredentials !== undefined) checkBoolean('allowCredentials', allowCredentials)
  if (allowCredentials === true && allowedOrigins === undefined) {
    throw new TypeError('"allowCredentials" goes with "allowedOrigins" only')
  }

  const isAllowed = ({ origin }: HeaderFields) => typeof origin === 'string' && origins.has(origin)

  return {
    always: origins.size === 0 ? {} : { Vary: 'Origin' },
    isAllowed,
    fieldsOf(headers) {
      if (!isAllowed(headers)) return {}
      return {
        'Access-Control-Allow-Origin': String(headers.origin),
        'Access-Control-Expose-Headers': EXPOSED_FIELDS,
        ...(allowCredentials === true && { 'Access-Control-Allow-Credentials': 'true' }),
      }
    },
    preflightFields(method, headers, methods) {
      const isPreflight = method === 'OPTIONS' && headers['access-control-request-method'] !== undefined
      if (!isPreflight || !isAllowed(headers)) return null
      return {
        'Access-Control-Allow-Methods': methods(),
        'Access-Control-Allow-Headers': allowedFields(headers['access-control-request-headers']),
        'Access-Control-Max-Age': String(PREFLIGHT_SECONDS),
      }
    },
  }
}

function checkOrigins(value: unknown): readonly string[] {
  return checkArray('allowedOrigins', value, MAX_ORIGINS).map((origin, i) => {
    if (typeof origin === 'string' && isOrigin(origin)) return origin
    return fail(
      `allowedOrigins[${i}]`,
      'one exact origin as a browser sends it, such as https://dashboard.example.com',
      origin,
    )
  })
}

/** Schemes of web views have origins as well, `capacitor://localhost`; what `URL` knows of http is asked for where it knows it. */
function isOrigin(text: string): boolean {
  if (!/^[a-z][a-z0-9+.-]*:\/\/(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[1-9]\d{0,4})?$/.test(text)) return false
  if (!URL.canParse(text)) return false
  const { origin } = new URL(text)
  return origin === 'null' || origin === text
}

function allowedFields(requested: string | string[] | undefined): string {
  const names = String(requested ?? '')
    .split(',', MAX_REQUESTED)
    .map((name) => name.trim())
    .filter((name) => TOKEN.test(name))
  const known = new Set(READ_FIELDS.map((name) => name.toLowerCase()))
  return [...READ_FIELDS, ...names.filter((name) => !known.has(name.toLowerCase()))].join(', ')
}
