import { TOKEN } from '../http/credential.ts'
import { checkArray, checkBoolean, fail } from '../internal/options.ts'

/** Which pages on other sites may use the HTTP interface from a browser (the CORS protocol of the Fetch standard). */
export interface CrossOriginOptions {
  /**
   * The origins whose pages may use the interface, each as a browser sends it, such as `https://dashboard.example.com`, with the port
   * unless it is the default one. Patterns, `*` and `null` are not accepted. The interface answers preflight requests from these
   * origins. It refuses cross-site changes from all others.
   *
   * @default [] (none: no CORS field is sent, and changes that another site has caused are refused)
   */
  allowedOrigins?: readonly string[]
  /**
   * Whether those pages may send cookies and other browser credentials (`Access-Control-Allow-Credentials`). Leave it off if they
   * send the login in a header field. Needs `allowedOrigins`.
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
  /** The header fields of every response. */
  readonly always: Readonly<Record<string, string>>
  /** Whether the request comes from a page that may use the interface. */
  isAllowed(headers: HeaderFields): boolean
  /** The header fields that let an allowed page read the response; none for all other requests. */
  fieldsOf(headers: HeaderFields): Record<string, string>
  /** The additional header fields for a preflight request to a path with these methods; null for any other request. */
  preflightFields(method: string, headers: HeaderFields, methods: () => string): Record<string, string> | null
}

const MAX_ORIGINS = 1_000
const MAX_REQUESTED = 50
const PREFLIGHT_SECONDS = 600
/** The fields that the interface reads. The login may use others, so a preflight request gets every field that it asks for. */
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
    throw new TypeError('"allowCredentials" needs "allowedOrigins"')
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

/** Web views have origins such as `capacitor://localhost`. `URL` knows the origins of http and https, and then they must match. */
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
