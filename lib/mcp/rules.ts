import { unescape as decode } from 'node:querystring'
import { type PermissionRequirement, resolveRequirement } from '../core/keys/permissions.ts'
import { requirementOf } from '../core/keys/requirement-of-request.ts'
import { type Cost, checkCost } from '../core/limits/cost.ts'
import type { RequestCost } from '../http/middleware.ts'
import type { RequestPermissions } from '../http/request-permissions.ts'
import type { Awaitable } from '../internal/awaitable.ts'
import { memberPath } from '../internal/key-text.ts'
import { OptionError } from '../internal/option-error.ts'
import { checkObject, isPlainObject } from '../internal/options.ts'

/** A call of a client, as rules see it. */
export interface McpCall {
  /** As `tools/call`. */
  readonly method: string
  /**
   * The name of the tool or prompt, or the URI of the resource; undefined for other methods. The functions of a rule are asked about a
   * URI as it was sent and, where these differ, as `new URL` writes it and as it is once it is decoded: the key needs the permissions of
   * all, and pays for what `new URL` writes.
   */
  readonly name: string | undefined
  /** The arguments of the tool or prompt: what the client sent, not yet checked by a schema. */
  readonly arguments: Readonly<Record<string, unknown>>
  /** All parameters. */
  readonly params: Readonly<Record<string, unknown>>
}

/** What a call needs and costs. `{}` lets in every valid key. */
export interface McpRule {
  /**
   * The permissions that the key needs. An object requires everything it names; an array, any one of its entries. Or a
   * function of the call that returns one of these at once:
   * ``({ arguments: { id } }) => ({ [`project:${id}`]: ['read'] })``. If it throws, or returns a promise or nothing to require, the
   * request gets a 503; if it names what no key can hold, a 403.
   */
  permissions?: RequestPermissions<McpCall>
  /**
   * What the call costs: a number of units, units by the name of a limit, or a function that returns one of these. If it fails,
   * takes longer than `timeoutMs` of `createApiKeys`, or returns anything else, the request gets a 503.
   *
   * @default 1 for tools, prompts and resources, 0 for other methods
   */
  cost?: RequestCost<McpCall>
}

/** What may be called, and what it needs and costs. Everything without a rule is refused. */
export interface McpRules {
  /** By the name of the tool. */
  tools?: Readonly<Record<string, McpRule>>
  /** By the name of the prompt. */
  prompts?: Readonly<Record<string, McpRule>>
  /**
   * By URI, or by the beginning of URIs with a `*` after it, as `file:///docs/*`. The longest one counts. A URI that leads elsewhere
   * when it is normalised or decoded, as `file:///docs/../secret`, is refused.
   */
  resources?: Readonly<Record<string, McpRule>>
  /**
   * By method, for methods that are not about one tool, prompt or resource. `false` refuses a method. Those that a client needs to
   * connect and to list what there is are free without a rule; other methods, such as `tasks/get`, are refused without one.
   *
   * @default `{}` for initialize, ping, server/discover, tools/list, prompts/list, resources/list, resources/templates/list,
   * resources/subscribe, resources/unsubscribe, completion/complete, subscriptions/listen, logging/setLevel and the notifications
   * initialized, cancelled, progress and roots/list_changed
   */
  methods?: Readonly<Record<string, McpRule | false>>
}

/** A rule that was checked. */
export interface CheckedRule {
  /** The permissions that a call needs; undefined if none. */
  requirementOf(call: McpCall): PermissionRequirement | undefined
  /** What a call costs, or what tells it. */
  costOf(call: McpCall): Cost | (() => Awaitable<Cost>)
}

/** The rules of a guard, checked. Each returns undefined where there is none. */
export interface CheckedRules {
  tool(name: string): CheckedRule | undefined
  prompt(name: string): CheckedRule | undefined
  resource(uri: string): CheckedRule | undefined
  method(name: string): CheckedRule | undefined
}

/** The names of {@link McpRules}. */
export const RULE_OPTIONS = Object.freeze(['tools', 'prompts', 'resources', 'methods'])

/** Methods whose rules stand elsewhere. */
const RULED_ELSEWHERE: ReadonlyMap<string, string> = new Map([
  ['tools/call', 'tools'],
  ['prompts/get', 'prompts'],
  ['resources/read', 'resources'],
])

const FREE_METHODS: Readonly<Record<string, McpRule>> = Object.freeze(
  Object.fromEntries(
    [
      'initialize',
      'ping',
      'server/discover',
      'tools/list',
      'prompts/list',
      'resources/list',
      'resources/templates/list',
      'resources/subscribe',
      'resources/unsubscribe',
      'completion/complete',
      'subscriptions/listen',
      'logging/setLevel',
      'notifications/initialized',
      'notifications/cancelled',
      'notifications/progress',
      'notifications/roots/list_changed',
    ].map((method) => [method, {}]),
  ),
)

/** Checks rules once. @throws TypeError naming the option. */
export function checkRules({ tools, prompts, resources, methods = {} }: McpRules): CheckedRules {
  for (const [method, option] of RULED_ELSEWHERE) {
    if (!isPlainObject(methods) || !Object.hasOwn(methods, method)) continue
    throw new OptionError('methods', `not name "${method}"; see "${option}"`)
  }
  const checked = {
    tools: checkAll('tools', tools, 1),
    prompts: checkAll('prompts', prompts, 1),
    methods: checkAll(
      'methods',
      { ...FREE_METHODS, ...(checkRecord('methods', methods) as typeof methods) },
      0,
    ),
  }
  return {
    tool: (name) => checked.tools.get(name),
    prompt: (name) => checked.prompts.get(name),
    resource: resourceRules(checkAll('resources', resources, 1)),
    method: (name) => checked.methods.get(name),
  }
}

function checkAll(
  option: string,
  rules: Readonly<Record<string, McpRule | false>> | undefined,
  cost: number,
): ReadonlyMap<string, CheckedRule> {
  const given = Object.entries(checkRecord(option, rules ?? {}))
  const isRefused = (rule: unknown) => option === 'methods' && rule === false
  return new Map(
    given
      .filter(([, rule]) => !isRefused(rule))
      .map(([name, rule]) => [name, checkRule(memberPath(option, name), rule, cost)]),
  )
}

function checkRecord(option: string, rules: unknown): Readonly<Record<string, unknown>> {
  if (isPlainObject(rules)) return rules
  throw new OptionError(option, 'be an object of rules by name')
}

function checkRule(path: string, rule: unknown, defaultCost: number): CheckedRule {
  checkObject(path, rule, ['permissions', 'cost'])
  const { permissions, cost = defaultCost } = rule as McpRule
  const required =
    permissions === undefined || typeof permissions === 'function'
      ? permissions
      : resolveRequirement(`${path}.permissions`, permissions)
  const costs = typeof cost === 'function' ? cost : checkCost(`${path}.cost`, cost)
  return {
    requirementOf: (call) =>
      typeof required === 'function' ? requirementOf(() => required(call)) : required,
    costOf: (call) => (typeof costs === 'function' ? () => costs(call) : costs),
  }
}

/** Finds the rule of a URI: the one that all of its readings are under. */
function resourceRules(rules: ReadonlyMap<string, CheckedRule>): (uri: string) => CheckedRule | undefined {
  const exact = new Map<string, CheckedRule>()
  const byStart: [string, CheckedRule][] = []
  for (const [uri, rule] of rules) {
    const star = uri.indexOf('*')
    const beginning = uri.slice(0, -1)
    if (star === -1) for (const reading of readingsOf(uri)) exact.set(reading, rule)
    else if (star === uri.length - 1) byStart.push([beginning, rule], [decode(beginning), rule])
    else throw new OptionError('resources', 'have a "*" only at the end of a URI')
  }
  // A URI that is written so belongs to its own rule, not to one that reads the same.
  for (const [uri, rule] of rules) if (!uri.endsWith('*')) exact.set(uri, rule)
  byStart.sort(([a], [b]) => b.length - a.length)
  const find = (uri: string) =>
    exact.get(uri) ?? byStart.find(([beginning]) => uri.startsWith(beginning))?.[1]
  return (uri) => {
    const [rule, ...others] = readingsOf(uri).map(find)
    return others.every((other) => other === rule) ? rule : undefined
  }
}

/**
 * What servers may take a URI for: first what `new URL` makes of it, as both SDKs do, then what was sent, and what a file or a record
 * is called once it is decoded.
 */
export function readingsOf(uri: string): readonly string[] {
  const normal = normalised(uri)
  return [...new Set([normal, uri, normalised(decode(normal))])]
}

function normalised(uri: string): string {
  return URL.canParse(uri) ? new URL(uri).href : uri
}
