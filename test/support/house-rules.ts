import { isBuiltin } from 'node:module'
import type { ImportEdge, ImportKind } from './import-graph.ts'

interface Layer {
  /** The layers it may import, besides itself. */
  layers: readonly string[]
  /** The packages it may import, each with the ways it may be reached. Node's own modules are always allowed. */
  packages: Readonly<Record<string, readonly ImportKind[]>>
  /** The one file that may import what is named only at run time. */
  opaqueIn?: string
}

const any: readonly ImportKind[] = ['static', 'dynamic', 'type']
const onlyTypes: readonly ImportKind[] = ['type']

/**
 * The house: `errors ← internal ← core ← {import, redis, http}`, `{core, redis} ← {stores, rate-limits, invalidation}` and `http ← {passport, express, koa, nest, management}`. The
 * order from left to right is spelled out for each layer; what is not listed is refused. Siblings are never listed.
 */
const LAYERS: Readonly<Record<string, Layer>> = {
  errors: { layers: [], packages: {} },
  internal: { layers: ['errors'], packages: {} },
  core: {
    layers: ['errors', 'internal'],
    // bcrypt is an optional peer: loaded when first needed, or not at all.
    packages: { 'lru-cache': any, '@date-fns/tz': any, bcrypt: ['dynamic'] },
  },
  // What everything on Redis shares. ioredis and node-redis are the application's, and known here by the few methods that are used.
  redis: { layers: ['errors', 'internal', 'core'], packages: { 'cluster-key-slot': any } },
  stores: {
    layers: ['errors', 'internal', 'core', 'redis'],
    // Drivers of SQLite are optional peers; pools of pg and mysql2 are the application's.
    packages: { 'cluster-key-slot': any, kysely: any, 'better-sqlite3': ['dynamic'], libsql: ['dynamic'] },
  },
  'rate-limits': {
    layers: ['errors', 'internal', 'core', 'redis'],
    packages: { 'lru-cache': any },
  },
  invalidation: { layers: ['errors', 'internal', 'core', 'redis'], packages: {} },
  tickets: { layers: ['errors', 'internal', 'core', 'redis'], packages: { 'lru-cache': any } },
  // Keys of other products, a door of its own.
  import: { layers: ['errors', 'internal', 'core'], packages: {} },
  http: { layers: ['errors', 'internal', 'core'], packages: { 'on-headers': any, 'raw-body': any } },
  passport: {
    layers: ['errors', 'internal', 'core', 'http'],
    packages: { 'passport-strategy': any, passport: onlyTypes, express: onlyTypes },
  },
  express: { layers: ['errors', 'internal', 'core', 'http'], packages: { express: onlyTypes } },
  koa: { layers: ['errors', 'internal', 'core', 'http'], packages: { koa: onlyTypes } },
  fastify: { layers: ['errors', 'internal', 'core', 'http'], packages: { fastify: onlyTypes } },
  // It is made of Nest's classes and decorators, on whatever platform Nest runs.
  nest: {
    layers: ['errors', 'internal', 'core', 'http'],
    packages: { '@nestjs/common': ['static', 'type'], '@nestjs/core': ['static', 'type'] },
  },
  // The sockets of `node:http`, and no package for WebSockets.
  websocket: { layers: ['errors', 'internal', 'core', 'http'], packages: {} },
  // It reads the core's channels, and hands what it hears to OpenTelemetry.
  telemetry: {
    layers: ['errors', 'internal', 'core'],
    packages: { '@opentelemetry/api': ['static', 'type'] },
  },
  // A web `Request` is no framework's.
  fetch: { layers: ['errors', 'internal', 'core', 'http'], packages: {} },
  // It guards servers of an SDK, of which it knows the shape of a call alone.
  mcp: { layers: ['errors', 'internal', 'core', 'http', 'fetch'], packages: { 'on-headers': any } },
  // It knows no framework.
  management: {
    layers: ['errors', 'internal', 'core', 'http'],
    packages: { zod: any, 'lru-cache': any },
  },
  // Its routers are doors of their own, each for one framework.
  'management/express': {
    layers: ['errors', 'internal', 'core', 'http', 'management'],
    packages: { express: onlyTypes },
  },
  'management/koa': {
    layers: ['errors', 'internal', 'core', 'http', 'management'],
    packages: { koa: onlyTypes },
  },
  'management/nest': {
    layers: ['errors', 'internal', 'core', 'http', 'nest', 'management'],
    packages: { '@nestjs/common': ['static', 'type'], '@nestjs/core': ['static', 'type'] },
  },
  'management/fetch': {
    layers: ['errors', 'internal', 'core', 'http', 'management'],
    packages: {},
  },
  // It runs in browsers: nothing that is loaded with it may need Node, which a test of its own sees to.
  client: { layers: ['errors', 'internal', 'core'], packages: {} },
  // It decides by what a client was told.
  remote: { layers: ['errors', 'internal', 'core', 'rate-limits', 'client'], packages: { 'lru-cache': any } },
  // It runs stores and limiters under the whole core, which needs one of each. Test runners are handed in.
  testing: { layers: ['errors', 'internal', 'core', 'stores', 'rate-limits'], packages: {} },
  // It composes, and nobody imports it. The configuration is a file of the application.
  cli: {
    layers: ['errors', 'internal', 'core', 'redis', 'stores', 'rate-limits', 'invalidation'],
    packages: { commander: any, 'string-width': any },
    opaqueIn: 'cli/load-config.ts',
  },
  // Doors, like the one below.
  'redis.ts': {
    layers: ['errors', 'core', 'redis', 'stores', 'rate-limits', 'invalidation', 'tickets'],
    packages: {},
  },
  sql: { layers: ['errors', 'core', 'stores'], packages: {} },
  // The main door shows what the layers offer; internal/ is never shown.
  index: { layers: ['errors', 'core', 'import', 'stores', 'rate-limits', 'tickets', 'http'], packages: {} },
}

/** The imports that break the rules of the house, each as one sentence; empty when there are none. */
export function findViolations(edges: readonly ImportEdge[]): string[] {
  return edges.flatMap((edge) => {
    const problem = edge.isFile ? problemWithFile(edge) : problemWithPackage(edge)
    return problem === undefined ? [] : [`${edge.from} → ${edge.to}: ${problem}`]
  })
}

function problemWithFile({ from, to }: ImportEdge): string | undefined {
  const [fromLayer, toLayer] = [layerOf(from), layerOf(to)]
  if (fromLayer === toLayer) return undefined
  if (to.startsWith('../')) return 'leaves lib/'
  if (LAYERS[fromLayer] === undefined) return `"${fromLayer}" has no place in the house yet`
  if (LAYERS[fromLayer].layers.includes(toLayer)) return undefined
  if (LAYERS[toLayer]?.layers.includes(fromLayer))
    return `${fromLayer} lies before ${toLayer}, the arrow runs back`
  return `${fromLayer} may not import ${toLayer}`
}

function problemWithPackage({ from, to, kind }: ImportEdge): string | undefined {
  const layer = LAYERS[layerOf(from)]
  if (layer === undefined) return `"${layerOf(from)}" has no place in the house yet`
  if (kind === 'opaque') return layer.opaqueIn === from ? undefined : 'a computed specifier cannot be checked'
  if (isBuiltin(to)) return to.startsWith('node:') ? undefined : `is written node:${to}`
  const ways = layer.packages[packageOf(to)]
  if (ways === undefined) return `${layerOf(from)} may not use this package`
  if (!ways.includes(kind)) return `${layerOf(from)} may use this package only as ${ways.join(' or ')} import`
  return undefined
}

/** `core/issue.ts` → `core`; `errors.ts` → `errors`; `management/koa.ts` → `management/koa`, which is a layer by itself. */
function layerOf(file: string): string {
  // The door has the name of a room.
  if (LAYERS[file] !== undefined) return file
  const whole = file.replace(/\.ts$/, '')
  if (LAYERS[whole] !== undefined) return whole
  const [first = ''] = file.split('/')
  return first.replace(/\.ts$/, '')
}

/** `@scope/name/deep` → `@scope/name`; `name/deep` → `name`. */
function packageOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/')
}
